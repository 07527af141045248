#!/usr/bin/env python3
"""Hold the manual pages to the headers, and run the programs in them.

    man.py check --pages FOLDER --header H...
    man.py examples --pages FOLDER --cmake CMAKE --build BUILD --compiler CC [--cxx CXX]
    man.py format --pages FOLDER
    man.py escape PAGE...

check: each public function is on one page, declared as in its header, with the errors that the
header names and where it may be called; each member of a structure and each constant is explained.
examples: what BUILD installs is found by each name, and the programs are compiled as the page says,
without warnings, and print what it says. format: mandoc and groff have nothing to complain about;
exit status 77: neither is here. escape: rewrites code in pages so that it is shown as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import header as headers
from pages import Page, Program, escape_page, read_pages

SECTIONS = ["NAME", "LIBRARY", "SYNOPSIS", "DESCRIPTION", "RETURN VALUES", "EXAMPLES", "ATTRIBUTES"]
WARNINGS = "-Wall -Wextra -Wpedantic -Werror"
OURS = re.compile(r"^\.Xr (pool\w*|libpool[\w-]*) (\d)", re.MULTILINE)


# ---- check --------------------------------------------------------------------------------------


def check_page(page: Page, functions: dict[str, headers.Function]) -> Iterator[str]:
    """Say what is wrong on a page of section 3."""
    for section in SECTIONS:
        if section not in page.sections:
            yield f"no section {section}"
    declared, attributes = page.declarations(), page.attributes()
    if page.names()[:1] != [page.path.stem]:
        yield f"its first name is not {page.path.stem}"
    for name in declared.keys() ^ (set(page.names()) & functions.keys()):
        yield f"{name} is in one of NAME and SYNOPSIS only, or in no header"
    for name in declared.keys() & functions.keys():
        function = functions[name]
        if declared[name] != function.declaration:
            yield f"it has {declared[name]}, the header {function.declaration}"
        for error in sorted(function.errors() - page.errors()):
            yield f"the header speaks of {error} of {name}, the page does not"
        if name not in attributes:
            yield f"{name} is not under ATTRIBUTES"
        elif "lso in a job" in function.comment and not re.search(
            r"\bjob\b|anywhere", attributes[name]
        ):
            yield f"the header has {name} also in a job, the page in: {attributes[name]}"
    if not page.programs():
        yield "no complete program"


def explained(name: str, owner: str, pages: list[Page]) -> bool:
    """Return whether a page that has the structure has the member in a list."""
    item = re.compile(rf"^\.It .*\bVa {name}\b", re.MULTILINE)
    return any(f"struct {owner}" in page.text and item.search(page.text) for page in pages)


def check_header(header: headers.Header, pages: list[Page]) -> Iterator[str]:
    """Say what a header has and no page."""
    text = "\n".join(page.text for page in pages)
    for function in header.functions + header.inline:
        homes = [page.path.name for page in pages if function.name in page.names()]
        if len(homes) != 1:
            yield f"{function.name} is on {len(homes)} pages: {' '.join(homes)}"
    for structure, members in header.structures.items():
        for member in members:
            if not explained(member, structure, pages):
                yield f"{member} of struct {structure} is in no list"
    for name in header.enumerators + header.constants:
        if not re.search(rf"^\.(It )?Dv {name}\b", text, re.MULTILINE):
            yield f"{name} is nowhere"
    shown = {headers.one_line(line) for page in pages for line in types_on(page)}
    for declaration in header.types.values():
        if declaration not in shown:
            yield f"no page shows {declaration}"


def types_on(page: Page) -> list[str]:
    """Return the typedefs that a page shows, without the semicolon."""
    return [line[:-1] for code in page.literal() for line in code.splitlines() if "typedef" in line]


def check(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong."""
    pages = read_pages(arguments.pages)
    problems: list[str] = []
    functions: dict[str, headers.Function] = {}
    for path in arguments.header:
        header = headers.read(path)
        functions |= {function.name: function for function in header.functions + header.inline}
        problems += [f"{path.name}: {problem}" for problem in check_header(header, pages)]
    known = {(name, page.section) for page in pages for name in page.names()}
    for page in pages:
        found = list(check_page(page, functions)) if page.section == "3" else []
        found += [
            f"no page {name}({n})" for name, n in OURS.findall(page.text) if (name, n) not in known
        ]
        if escape_page(page.text) != page.text:
            found.append(
                "code is not written so that it is shown as it is: man.py escape puts it right"
            )
        found += [f"line of {len(line)}" for line in page.text.splitlines() if len(line) > 100]
        problems += [f"{page.path.name}: {problem}" for problem in found]
    print(f"{len(functions)} functions on {len(pages)} pages")
    return problems


# ---- examples -----------------------------------------------------------------------------------


def header_of(program: Program) -> str:
    """Return the header of ours that a program needs, without its .h: pkg-config knows it so."""
    found = re.search(r"#include <(libpool[\w-]*)\.h(?:pp)?>", program.text)
    return found[1] if found else "libpool"


def run_program(program: Program, folder: Path, environment: dict[str, str]) -> str | None:
    """Compile and run a program; return what is wrong."""
    (folder / program.name).write_text(program.text)
    stem = Path(program.name).stem
    usual = f"cc -o {stem} {program.name} $(pkg-config --cflags --libs {header_of(program)})"
    for command in [*(program.commands or [usual]), f"./{stem}"]:
        finished = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        if finished.returncode or finished.stderr:
            return f"{command}: {finished.returncode}\n{finished.stdout}{finished.stderr}"
    if not program.promised() or finished.stdout.splitlines() != program.promised():
        return f"it prints {finished.stdout!r}, and not {program.promised()}"
    return None


def check_links(folder: Path, pages: list[Page]) -> Iterator[str]:
    """Say which names lead to no page among those installed."""
    for page in pages:
        for name in page.names():
            file = folder / f"man{page.section}" / f"{name}.{page.section}"
            text = file.read_text() if file.exists() else ""
            if text.startswith(".so "):
                text = (folder / text[4:].strip()).read_text()
            if text != page.text:
                yield f"{file.name} is not {page.path.name}"
            command = ["man", "-M", str(folder), "-w", page.section, name]
            if shutil.which("man") and subprocess.run(command, capture_output=True).returncode:
                yield f"man {page.section} {name} finds nothing"


def is_installed(page: Page, include: Path) -> bool:
    """Return whether the header that a page tells to include is there."""
    found = re.search(r"^\.In (\S+)", page.text, re.MULTILINE)
    return found is None or (include / found[1]).exists()


def examples(arguments: argparse.Namespace) -> list[str]:
    """Return what is wrong."""
    pages, count = read_pages(arguments.pages), 0
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        install = [arguments.cmake, "--install", arguments.build, "--prefix", folder / "usr"]
        command = [str(word) for word in install]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        include = next((folder / "usr").glob("**/libpool.h")).parent
        pages, others = (
            [page for page in pages if is_installed(page, include) is wanted]
            for wanted in (True, False)
        )
        for page in others:
            print(f"skipped: {page.path.name} (its library is not built here)")
        problems += check_links(next((folder / "usr").glob("**/man3")).parent, pages)
        libraries = next((folder / "usr").glob("**/libpool.a")).parent
        tools = folder / "bin"
        tools.mkdir()
        for name, real in (("cc", arguments.compiler), ("c++", arguments.cxx)):
            if real:
                wrapper = tools / name
                path = shutil.which(real) or real
                wrapper.write_text(f'#!/bin/sh\nexec "{path}" {WARNINGS} "$@"\n')
                wrapper.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PKG_CONFIG_PATH": f"{libraries}/pkgconfig",
            "LD_LIBRARY_PATH": str(libraries),
        }
        for page in pages:
            for program in page.programs():
                if program.name.endswith(".cpp") and not arguments.cxx:
                    print(f"skipped: {program.name} (no C++ compiler)")
                    continue
                count += 1
                problem = run_program(program, folder, environment)
                if problem:
                    problems.append(f"{page.path.name}: {program.name}: {problem}")
    print(f"{count} programs")
    return problems


# ---- format -------------------------------------------------------------------------------------


def typeset(arguments: argparse.Namespace) -> list[str]:
    """Return what mandoc and groff complain about."""
    commands = {
        "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
        "groff": ["groff", "-mdoc", "-T", "utf8", "-ww", "-z"],
    }
    here = [command for name, command in commands.items() if shutil.which(name)]
    for name in commands.keys() - {command[0] for command in here}:
        print(f"skipped: {name} (not here)")
    if not here:
        sys.exit(77)
    problems: list[str] = []
    for command in here:
        for page in read_pages(arguments.pages):
            finished = subprocess.run(
                [*command, str(page.path)], capture_output=True, text=True, check=False, timeout=60
            )
            problems += (finished.stdout + finished.stderr).splitlines()
    return problems


def main() -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="the manual pages")
    parser.add_argument("command", choices=["check", "examples", "format", "escape"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--header", type=Path, action="append")
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--cxx", default="")
    arguments = parser.parse_args()
    if arguments.command == "escape":
        for path in arguments.files:
            path.write_text(escape_page(path.read_text()))
        return 0
    commands = {"check": check, "examples": examples, "format": typeset}
    problems = commands[arguments.command](arguments)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
