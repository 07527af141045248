"""What a program's file defines when it is imported, and not run."""

from __future__ import annotations

import ast
import tokenize
from types import FunctionType
from typing import Self

__all__ = ["MainSource"]


class MainSource(ast.NodeVisitor):
    """The names that a file gives to its module outside ``if __name__ == "__main__":``.

    That is what a worker has which imports the file under another name.

    Parameters
    ----------
    path : str
        The file.
    tree : ast.Module
        What is in it.
    """

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self._bound: set[str] = set()
        self._guarded: set[str] = set()
        self._anywhere: set[str] = set()
        self._lines: list[tuple[int, int]] = []
        self._star = False
        self._names = self._bound
        for statement in tree.body:
            self.visit(statement)
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                self._anywhere.update(node.names)

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Read a file; None if that can't be done: it is no Python source."""
        try:
            with tokenize.open(path) as file:
                return cls(path, ast.parse(file.read(), path))
        except (OSError, SyntaxError, ValueError):
            return None

    def lacks(self, name: str, value: object) -> bool:
        """Whether a worker has nothing, or something else, where the host has `value`."""
        if name.startswith("__") and name.endswith("__"):
            return False
        if type(value) is FunctionType and value.__code__.co_filename == self.path:
            line = value.__code__.co_firstlineno
            return name not in self._bound or not any(a <= line <= b for a, b in self._lines)
        if isinstance(value, type) and value.__module__ == "__main__":
            return name not in self._bound or name in self._guarded
        return not (self._star or name in self._bound or name in self._anywhere)

    # ---- Finding the names ----------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> None:
        asks = any(isinstance(x, ast.Name) and x.id == "__name__" for x in ast.walk(node.test))
        before, self._names = self._names, self._guarded if asks else self._names
        for statement in node.body:
            self.visit(statement)
        self._names = before
        for statement in node.orelse:
            self.visit(statement)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._names.add(node.name)
        self._note_lines(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _define

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._note_lines(node)

    def _note_lines(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    ) -> None:
        if self._names is self._bound:
            first = min([node.lineno, *(x.lineno for x in getattr(node, "decorator_list", ()))])
            self._lines.append((first, node.end_lineno or node.lineno))

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._names.add(node.id)

    def visit_alias(self, node: ast.alias) -> None:
        if node.name == "*":
            self._star = self._star or self._names is self._bound
        else:
            self._names.add(node.asname or node.name.partition(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._names.add(node.name)
        self.generic_visit(node)
