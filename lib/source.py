"""A digest of a source file's meaning, which comments, docstrings and layout do not change."""

import ast
import hashlib
from pathlib import Path
from typing import Any


def digest(path: Path) -> str:
    """The SHA-256 of what a Python file means to the interpreter.

    A checkpoint made by other code must not be used, and a better comment must not cost a retraining.
    """
    return hashlib.sha256(repr(_meaning(ast.parse(path.read_bytes()))).encode()).hexdigest()


def _meaning(node: Any) -> Any:
    """A syntax tree as nested lists, without positions, and without statements that are bare constants (docstrings).

    Empty fields are left out, since Python versions differ in which they have.
    """
    if isinstance(node, list):
        return [_meaning(each) for each in node if not _mere_constant(each)]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, _meaning(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return [type(node).__name__, *fields]


def _mere_constant(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
