"""What a public C header of this project declares, read from its text.

It is no C parser: it relies on the form that clang-format gives these headers, and on each public
function beginning with ``POOL_API``. What it can't read is an error, never left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Function:
    """One public function: its name, and its declaration on one line without the semicolon."""

    name: str
    declaration: str
    comment: str  # what stands before it, or before the first of a group of declarations

    def errors(self) -> set[str]:
        """Return the names of errors that the comment speaks of, such as EINVAL."""
        return set(re.findall(r"\bE[A-Z0-9]{3,}\b", self.comment)) - {"ETC"}


@dataclass
class Header:
    """The public functions, structures, enumerators, constants and types of a header."""

    functions: list[Function] = field(default_factory=list)  # what the library exports
    inline: list[Function] = field(default_factory=list)  # what the header itself defines
    structures: dict[str, list[str]] = field(default_factory=dict)  # name: members
    enumerators: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)  # macros with a value
    types: dict[str, str] = field(default_factory=dict)  # typedefs

    def names(self) -> set[str]:
        """Return the names of all functions that the library exports."""
        return {function.name for function in self.functions}


def one_line(text: str) -> str:
    """Join the lines of a declaration, with single spaces and none beside parentheses or stars."""
    text = " ".join(text.split())
    text = re.sub(r"\s*([(),*])\s*", r"\1", text)
    return re.sub(r",", ", ", re.sub(r"(?<=[\w])\*", " *", text))


def declarators(member: str) -> list[str]:
    """Return the names that the declaration of a member declares, `uint64_t a, b` two of them."""
    pointer = re.match(r"[\w\s*]+\(\*(\w+)\)\s*\(", member)
    if pointer:
        return [pointer[1]]
    names = []
    for part in member.split(","):
        name = re.search(r"(\w+)\s*(?:\[\w+\]\s*)*$", part)
        if name is None:
            raise ValueError(f"no name in the member {member!r}")
        names.append(name[1])
    return names


def read(path: Path) -> Header:
    """Read a header."""
    text = path.read_text()
    header = Header()
    _functions(text, header)
    code = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)

    for name, body in re.findall(r"^struct (\w+)\s*\{(.*?)^\};", code, re.DOTALL | re.MULTILINE):
        members = [member.strip() for member in body.split(";") if member.strip()]
        header.structures[name] = [name for member in members for name in declarators(member)]
    for body in re.findall(r"^enum \w+\s*\{(.*?)\};", code, re.DOTALL | re.MULTILINE):
        header.enumerators += re.findall(r"\b([A-Z]\w+)\b\s*(?:=|,|$)", body, re.MULTILINE)
    for name in re.findall(r"^#define (\w+)[ \t]+\S", code, re.MULTILINE):
        if name.startswith("POOL_") and "VERSION" not in name and not name.endswith("_API"):
            header.constants.append(name)
    for declaration in re.findall(r"^typedef [^;]*;", code, re.MULTILINE):
        found = re.search(r"\(\*(\w+)\)|(\w+);$", declaration)
        if found is None or "{" in declaration:
            raise ValueError(f"can't read {declaration!r}")
        header.types[found[1] or found[2]] = one_line(declaration.rstrip(";"))
    return header


_DECLARATION = re.compile(
    r"/\*(?P<comment>.*?)\*/|^(?P<kind>POOL_\w*API|static inline)\b(?P<declaration>[^;{]*);",
    re.DOTALL | re.MULTILINE,
)


def _functions(text: str, header: Header) -> None:
    comment = ""
    # A comment goes for all declarations up to the next one: families are declared together.
    for found in _DECLARATION.finditer(text):
        if found["kind"] is None:
            comment = found["comment"]
            continue
        declaration = one_line(found["declaration"])
        name = re.search(r"(\w+)\(", declaration)
        if name is None:
            raise ValueError(f"can't read the declaration {declaration!r}")
        function = Function(name[1], declaration, comment)
        (header.inline if found["kind"] == "static inline" else header.functions).append(function)
