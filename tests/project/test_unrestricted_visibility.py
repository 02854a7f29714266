"""Unrestricted visibility is built in one place, and the functions that may use it are listed here."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "fhir_server"
CALLERS = {
    "access/resolver.py _facts": "reads birth dates, relationships and consents to find out what the caller may see",
    "access/permissions.py _facts": "the same",
    "maintenance/export.py _export_type": "exports the store for its operator",
    "maintenance/relabel.py _relabel_page": "labels every row again",
}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def functions_with(matches: Callable[[ast.AST], bool]) -> set[str]:
    """The functions of the product that contain a matching node, by file and name."""
    return {
        f"{path.relative_to(SOURCES).as_posix()} {function.name}"
        for path in SOURCES.rglob("*.py")
        for function in functions(ast.parse(path.read_text(encoding="utf-8")))
        if any(map(matches, ast.walk(function)))
    }


def is_call_of_unrestricted(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "unrestricted"


def admits_unreleased_rows(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "released_only" and ast.unparse(node.value) == "False"


def test_only_listed_functions_use_unrestricted_visibility() -> None:
    found = functions_with(is_call_of_unrestricted)
    assert found <= set(CALLERS)
    assert {"maintenance/export.py _export_type", "maintenance/relabel.py _relabel_page"} <= found


def test_no_other_function_builds_it_by_hand() -> None:
    assert functions_with(admits_unreleased_rows) <= {"search/visibility.py unrestricted", "access/permissions.py _facts"}
