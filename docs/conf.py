"""How Sphinx builds these pages; `./dev docs` does it."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
from pathlib import Path
from typing import Any

import libpool

project = "libpool"
author = "The libpool authors"
release = version = importlib.metadata.version("libpool")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["Thumbs.db", ".DS_Store"]
default_role = "py:obj"  # what docstrings have between single backquotes

html_theme = "furo"
html_title = f"libpool {release}"
highlight_language = "none"
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
python_display_short_literal_types = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88


# ---- Types of what is written in C, from its stub ---------------------------------------------

Signature = tuple[str, str | None]


def stub_signatures() -> dict[str, Signature]:
    """Read the signatures in `_core.pyi`, by name: ``Future.result``."""
    stub = Path(libpool.__file__).with_name("_core.pyi")
    found = {}
    for node in ast.parse(stub.read_text()).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef):
                found[prefix + member.name] = _signature(member)
    return found


def _signature(function: ast.FunctionDef) -> Signature:
    arguments = function.args
    first = [*arguments.posonlyargs, *arguments.args][:1]
    if first and first[0].arg == "self":
        (arguments.posonlyargs or arguments.args).pop(0)
    result = None if function.returns is None else _short(function.returns)
    return f"({_short(arguments)})", result


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    for before, after in (("_P.", "P."), ("_P,", "P,"), ("_T", "T"), ("futures.Future", "Future")):
        text = text.replace(before, after)
    return text


STUBS = stub_signatures()


def use_stub(
    app: object, what: str, name: str, obj: Any, options: object, signature: str, returns: str
) -> Signature | None:
    """Give Sphinx the signature with types of a function that is written in C.

    In others, a default that only says that nothing was given is shown as three dots.
    """
    if inspect.isbuiltin(obj) or inspect.ismethoddescriptor(obj):
        return STUBS.get(obj.__qualname__)
    if signature and "_Same" in signature:
        return re.sub(
            r"(?: \| [~\w.]*_Same)? = (?:_Same\.SAME|<[^>]*_Same object>)", " = ...", signature
        ), returns
    return None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", use_stub)
