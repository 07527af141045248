"""Manual pages in mdoc, as far as their tests have to understand them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from header import one_line

# What a typesetter makes something else of, and what stands for the character itself.
ESCAPES = {"\\": "\\e", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", "-": "\\-"}
_LITERAL = re.compile(r"(^\.Bd -literal.*?\n)(.*?)(^\.Ed$)", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"^(\.(?:Dl|Ql) )(.*)$", re.MULTILINE)


def escape(text: str) -> str:
    """Write what is to be shown as it is, such as code."""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def unescape(text: str) -> str:
    """Return what a reader sees, and copies."""
    for character, code in ESCAPES.items():
        if character != "\\":
            text = text.replace(code, character)
    return text.replace("\\&", "").replace("\\e", "\\")


def escape_page(text: str) -> str:
    """Escape what is to be shown as it is in a page; what is escaped already stays so."""
    text = _LITERAL.sub(lambda m: m[1] + escape(unescape(m[2])) + m[3], text)
    return _LINE.sub(lambda m: m[1] + escape(unescape(m[2])), text)


@dataclass(frozen=True)
class Program:
    """A program in an example: the name of its file, its text, and the lines that compile it."""

    name: str
    text: str
    commands: list[str]

    def promised(self) -> list[str]:
        """Return the lines that it prints, as its comments say."""
        return re.findall(r"/\* prints (.*?) \*/", self.text)


class Page:
    """One page, by sections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.section = path.suffix[1:]
        self.text = path.read_text()
        parts = re.split(r"^\.Sh (.*)\n", self.text, flags=re.MULTILINE)
        self.sections = dict(zip(parts[1::2], parts[2::2], strict=True))

    def names(self) -> list[str]:
        """Return the names under which it is found."""
        return re.findall(r"^\.Nm ([\w-]+)", self.sections.get("NAME", ""), re.MULTILINE)

    def declarations(self) -> dict[str, str]:
        """Return the functions in the synopsis with their declarations."""
        found = {}
        kind, name, arguments = "", "", [""]
        for line in self.sections.get("SYNOPSIS", "").splitlines():
            macro, _, rest = line.partition(" ")
            if macro == ".Ft":
                kind = rest
            elif macro in (".Fn", ".Fo"):
                name, *arguments = shlex.split(rest)
            elif macro == ".Fa":
                arguments += shlex.split(rest)
            if macro in (".Fn", ".Fc"):
                found[name] = one_line(f"{kind} {name}({', '.join(arguments)})")
        return found

    def literal(self) -> list[str]:
        """Return what it shows as it is, in displays of several lines."""
        return [unescape(found[2]) for found in _LITERAL.finditer(self.text)]

    def programs(self) -> list[Program]:
        """Return the complete programs in it."""
        lines = [unescape(found[2]) for found in _LINE.finditer(self.text)]
        programs = []
        for code in self.literal():
            if "int main(" not in code:
                continue
            name = re.match(r"/\* (\w+\.(?:c|cpp)) \*/\n", code)
            if name is None:
                raise ValueError(f"{self.path.name}: a program without /* its name */ on top")
            compiling = [
                line for line in lines if re.match(r"(cc|c\+\+) ", line) and name[1] in line
            ]
            programs.append(Program(name[1], code, compiling))
        return programs

    def errors(self) -> set[str]:
        """Return the errors in the list of them."""
        return set(re.findall(r"^\.It Bq Er (\w+)", self.sections.get("ERRORS", ""), re.MULTILINE))

    def attributes(self) -> dict[str, str]:
        """Return for each function in the table where it may be called."""
        table = self.sections.get("ATTRIBUTES", "")
        return dict(re.findall(r"^\.It Fn (\w+) Ta [^\n]* Ta ([^\n]*)", table, re.MULTILINE))


def read_pages(folder: Path) -> list[Page]:
    """Read all pages in a folder."""
    return [Page(path) for path in sorted(folder.glob("*.[37]"))]
