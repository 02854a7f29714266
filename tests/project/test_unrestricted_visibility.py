"""Unrestricted visibility is built in one place, and the functions that may use it are listed here."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "fhir_server"
CALLERS = {
    "access/resolver.py resolve": "reads birth dates, relationships and consents to find out what the caller may see",
    "access/resolver.py accessible_records": "reads the same facts to find out which records a person may open",
    "subscriptions/dispatcher.py _look_for_changes": "finds out of which types anything was stored, and gives out nothing of it",
    "maintenance/check_references.py _rows": "looks for references that cannot be read, for the operator",
    "maintenance/load.py _one_match": "finds what a conditional reference in the operator's file names",
    "maintenance/export.py _export_type": "exports the store for its operator",
    "maintenance/relabel.py _relabel_page": "labels every row again",
    "packages/loading.py _all_with": "finds what the operator's packages have stored under a URL",
    "packages/profile_source.py _packaged_rows": "reads the definitions of the operator's packages, which are the same for all callers",
    "writing/indexing_steps.py _index_page": "gives every row the index entries of new search parameters",
    "maintenance/unclassified.py _rows": "counts unknown codes for the operator",
}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def matching_functions(source: str, matches: Callable[[ast.AST], bool]) -> Iterator[str]:
    """The names of the functions in a module's source that contain a matching node."""
    return (function.name for function in functions(ast.parse(source)) if any(map(matches, ast.walk(function))))


def functions_with(matches: Callable[[ast.AST], bool]) -> set[str]:
    """The functions of the product that contain a matching node, by file and name."""
    return {
        f"{path.relative_to(SOURCES).as_posix()} {name}"
        for path in SOURCES.rglob("*.py")
        for name in matching_functions(path.read_text(encoding="utf-8"), matches)
    }


def is_call_of_unrestricted(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "unrestricted"


def admits_unreleased_rows(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "released_only" and ast.unparse(node.value) == "False"


def test_only_listed_functions_use_unrestricted_visibility() -> None:
    assert functions_with(is_call_of_unrestricted) == set(CALLERS)


def test_no_other_function_builds_it_by_hand() -> None:
    assert functions_with(admits_unreleased_rows) == {"search/visibility.py unrestricted"}


def test_unlisted_uses_of_unrestricted_visibility_are_detected() -> None:
    planted = """
async def answer(view):
    return Visibility.unrestricted(3, view.now)

def by_hand(classes):
    return VisibilityClause(None, classes, released_only=False)
"""
    assert list(matching_functions(planted, is_call_of_unrestricted)) == ["answer"]
    assert list(matching_functions(planted, admits_unreleased_rows)) == ["by_hand"]
