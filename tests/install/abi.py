#!/usr/bin/env python3
"""Compare the binary interface of a library with the one on record.

    abi.py --header H [--include FOLDER...] --map MAP --record FILE --library SO [--compiler CC]
    abi.py ... --update

MAP is the linker's version script: the symbols, each with the version that brought it. FILE lists
them with their declarations, and the sizes and offsets of public structures, values of constants.
FILE.xml has the same, and all types, for libabigail's abidiff, which is used where it is at hand.
Any difference is an error, since programs that are built already rely on all of it.
--update rewrites the three from the header, for who means the change. Exit status 77: the record
is of another kind of machine.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import header as headers

SKIPPED = 77
TITLE = """\
# The binary interface of {name}: what programs that were built against it rely on.
# Written by `./dev abi --update`. 64-bit machines; sizes and offsets are bytes.
"""


def run(*command: object) -> str:
    """Run a command that must succeed, and return what it prints."""
    words = [str(word) for word in command]
    finished = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if finished.returncode:
        sys.exit(f"{' '.join(words)}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


# ---- The version script ---------------------------------------------------------------------


def read_map(path: Path) -> dict[str, str]:
    """Return the version of each symbol, in the order of a linker's version script."""
    versions: dict[str, str] = {}
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    for version, body in re.findall(r"^(\w[\w.]*) \{(.*?)^\}", text, re.DOTALL | re.MULTILINE):
        for name in re.findall(r"^\s+(\w+);", body, re.MULTILINE):
            if name in versions:
                sys.exit(f"{path}: {name} stands there twice")
            versions[name] = version
    return versions


def newest(path: Path) -> str:
    """Return the last version in the script, which gets new symbols."""
    return str(re.findall(r"^(\w[\w.]*) \{", path.read_text(), re.MULTILINE)[-1])


def update_map(path: Path, names: set[str]) -> None:
    """Drop symbols that are gone, and add new ones to the newest version."""
    text = path.read_text()
    known = read_map(path)
    for name in known.keys() - names:
        text = re.sub(rf"^\s+{name};\n", "", text, flags=re.MULTILINE)
    version = newest(path)
    kept = {name for name, its in known.items() if its == version and name in names}
    lines = "".join(f"    {name};\n" for name in sorted(kept | (names - known.keys())))
    block = re.compile(rf"(^{re.escape(version)} \{{\nglobal:\n)(?:\s+\w+;\n)*", re.MULTILINE)
    path.write_text(block.sub(lambda found: found[1] + lines, text))


def exported(library: Path) -> dict[str, str]:
    """Return the version of each symbol that a shared library defines for others."""
    versions = {}
    for line in run("objdump", "-T", library).splitlines():
        found = re.match(r"[0-9a-f]+ [^*]*\s(\.\w+)\s+[0-9a-f]+\s+(\S+)?\s+(\w+)$", line)
        if found:
            versions[found[3]] = (found[2] or "").strip("()")
    return versions


# ---- Structures and constants ---------------------------------------------------------------


def layout(path: Path, header: headers.Header, compiler: list[str]) -> list[str]:
    """Have the compiler say how large structures are, where members lie, and what constants are."""
    lines = []
    for name, members in header.structures.items():
        kind = f"struct {name}"
        lines.append(
            f'printf("{kind} %zu aligned %zu\\n", sizeof({kind}), (size_t)_Alignof({kind}));'
        )
        for member in members:
            at, size = f"offsetof({kind}, {member})", f"sizeof(x.{member})"
            lines.append(
                f'{{ {kind} x; printf("{kind} %zu %zu {member}\\n", {at}, {size}); (void)x; }}'
            )
    for name in header.enumerators + header.constants:
        lines.append(f'printf("constant {name} %lld\\n", (long long)({name}));')
    code = "\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "layout.c"), Path(folder, "layout")
        source.write_text(
            f'#include <stdio.h>\n#include "{path.resolve()}"\nint main(void) {{\n{code}\n}}\n'
        )
        run(*compiler, "-w", "-o", program, source)
        return run(program).splitlines()


def describe(path: Path, header: headers.Header, script: Path, compiler: list[str]) -> list[str]:
    """Return the lines of the record."""
    versions = read_map(script)
    symbols = sorted(
        f"{versions.get(function.name, 'no version')}: {function.declaration}"
        for function in header.functions
    )
    return symbols + sorted(header.types.values()) + layout(path, header, compiler)


# ---- libabigail -----------------------------------------------------------------------------


def build_interface(
    path: Path, header: headers.Header, script: Path, compiler: list[str], library: Path
) -> None:
    """Build a library that has the declared functions, which do nothing, and nothing else."""
    stubs = [f"{function.declaration} {{ __builtin_trap(); }}" for function in header.functions]
    flags = ["-g", "-w", "-fPIC", "-shared", "-fvisibility=hidden"]
    source = library.with_suffix(".c")
    source.write_text("\n".join([f'#include "{path.resolve()}"', *stubs, ""]))
    run(*compiler, *flags, f"-Wl,--version-script={script}", "-o", library, source)


def write_xml(
    path: Path, header: headers.Header, script: Path, compiler: list[str], out: Path
) -> None:
    """Describe the interface alone: of the library itself it would name all types inside."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "interface.so")
        build_interface(path, header, script, compiler, library)
        plain = "architecture corpus-path comp-dir-path show-locs parameter-names elf-needed"
        options = [f"--no-{what}" for what in plain.split()]
        run("abidw", *options, "--type-id-style", "hash", "--out-file", out, library)
    text = re.sub(r"( path=)'[^']*'", rf"\1'{path.name}'", out.read_text())
    out.write_text(text)


def differences_of_abidiff(
    record: Path, path: Path, header: headers.Header, script: Path, compiler: list[str]
) -> list[str]:
    """Return what abidiff reports of the declared interface, nothing where nothing has changed.

    Not of the library itself: that opaque types are complete inside of it hides what has changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "interface.so")
        build_interface(path, header, script, compiler, library)
        command = ["abidiff", "--no-architecture", "--harmless", str(record), str(library)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    report = f"{finished.stdout}{finished.stderr}".splitlines()
    return [f"abidiff: exit status {finished.returncode}", *report] if finished.returncode else []


# ---- The commands ---------------------------------------------------------------------------


def check_exports(library: Path, script: Path, header: headers.Header) -> list[str]:
    """Return what differs between library, version script and header."""
    wanted, found, declared = read_map(script), exported(library), header.names()
    problems = [f"{name} is in {script.name} and not declared" for name in wanted.keys() - declared]
    problems += [
        f"{name} is declared and not in {script.name}" for name in declared - wanted.keys()
    ]
    for name in wanted.keys() | found.keys():
        if wanted.get(name) != found.get(name) and found.get(name) != "Base":
            has, should = found.get(name, "nothing"), wanted.get(name, "nothing")
            if name not in set(wanted.values()):  # the versions are symbols themselves
                problems.append(f"{name}: the library has {has}, {script.name} {should}")
    return sorted(problems)


def check_record(record: Path, now: list[str]) -> list[str]:
    """Return the differences between the record and what the header says now."""
    before = [line for line in record.read_text().splitlines() if not line.startswith("#")]
    lines = difflib.unified_diff(before, now, "on record", "now", lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def main() -> int:
    """Check or update."""
    parser = argparse.ArgumentParser(description="compare a library's binary interface")
    parser.add_argument("--header", type=Path, required=True)
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--include", type=Path, action="append", default=[])
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    header, record = headers.read(arguments.header), arguments.record
    xml = record.with_name(record.name + ".xml")
    compiler = [arguments.compiler, *(f"-I{folder}" for folder in arguments.include)]
    if not header.functions:
        sys.exit(f"{arguments.header}: no public function found")

    same_kind = struct.calcsize("P") == 8
    if arguments.update:
        if not same_kind:
            sys.exit("the record is made on a 64-bit machine")
        update_map(arguments.map, header.names())
        now = describe(arguments.header, header, arguments.map, compiler)
        title = TITLE.format(name=arguments.header.name)
        record.write_text(title + "".join(f"{line}\n" for line in now))
        if shutil.which("abidw"):
            write_xml(arguments.header, header, arguments.map, compiler, xml)
        else:
            print(f"no abidw here (abigail-tools): {xml.name} is as it was, and may be out of date")
        return 0

    problems = check_exports(arguments.library, arguments.map, header)
    if same_kind:
        now = describe(arguments.header, header, arguments.map, compiler)
        problems += check_record(record, now)
        if shutil.which("abidiff"):
            interface = arguments.header, header, arguments.map, compiler
            problems += differences_of_abidiff(xml, *interface)
        else:
            print("skipped: abidiff (no abigail-tools here)")
    if problems:
        print(f"The binary interface is not what {record.name} has on record:\n")
        print("\n".join(problems))
        print(
            "\n- is gone or was different, + is new. What is on record, programs were built with:"
        )
        print("where one line is gone, they break. If it is meant: ./dev abi --update")
        return 1
    if not same_kind:
        print("skipped: the record is of 64-bit machines")
        return SKIPPED
    print(f"{len(header.functions)} functions and {len(header.structures)} structures as on record")
    return 0


if __name__ == "__main__":
    sys.exit(main())
