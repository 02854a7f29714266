"""Bounds of a search, the same for every store: what is past them is refused with one text and never reaches a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fhir_server.errors import Problem
from fhir_server.search.escaping import split
from fhir_server.search.filters import AllOf, Filter
from fhir_server.search.steps import steps

MAX_PAIRS: Final = 200
MAX_VALUES: Final = 500
MAX_CONDITIONS: Final = 30
"""Different conditions that must all hold.  A database weighs the ways to begin a search, and their number grows with each."""
MAX_STEPS: Final = 30
"""Steps of all chained parameters and ``_has``; a chain has one for each type to which its reference may lead."""
MAX_STEP_ROWS: Final = 10_000
"""Rows that one step may lead to if they are looked up before the search: on MongoDB, and by canonical URLs in every store."""
MAX_SORT_KEYS: Final = 10
MAX_CHAIN_SORTED: Final = 10_000
"""Rows that a search with a chained sort key may find: the values of each are looked up in other rows."""
MAX_CONTAINED: Final = 8000
"""Characters of a text to look for inside others."""


def require_searchable(pairs: Sequence[tuple[str, str]]) -> None:
    """Require that the parameters of a search are not too many and contain no U+0000.  Raises Problem ``invalid``."""
    if len(pairs) > MAX_PAIRS:
        raise Problem("invalid", f"A search may have at most {MAX_PAIRS} parameters.")
    if sum(len(split(value, ",")) for _, value in pairs) > MAX_VALUES:
        raise Problem("invalid", f"A search may have at most {MAX_VALUES} values.")
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise Problem("invalid", "A search parameter contains the character U+0000, which no element of a resource may contain.")


def whole_number(text: str) -> int | None:
    """The number that a text of up to nine digits is; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def all_of(conditions: Iterable[Filter]) -> AllOf:
    """The condition that all of these hold, each once.  Raises Problem ``invalid`` for too many."""
    different = tuple(dict.fromkeys(conditions))
    if len(different) > MAX_CONDITIONS:
        raise Problem("invalid", f"A search may have at most {MAX_CONDITIONS} different conditions.")
    require_few_steps(sum(1 for condition in different for _ in steps(condition)))
    return AllOf(different)


def require_few_steps(number: int) -> None:
    """Raises Problem ``invalid`` for more steps than a search may have."""
    if number > MAX_STEPS:
        raise Problem(
            "invalid",
            f"Chained parameters and _has may have at most {MAX_STEPS} steps in one search, counting each type to which a reference may "
            "lead. Name the type, as in subject:Patient.name.",
        )


def too_many_step_rows(type: str, most: int) -> Problem:
    """The refusal of a step that leads to more than ``most`` visible rows of ``type``."""
    return Problem(
        "invalid",
        f"A chained parameter or _has leads to more than {most} resources of type {type}. Narrow it, or search for these resources first.",
    )


def require_few_to_sort(found: int) -> None:
    """Raises Problem ``invalid`` for more rows than can be sorted by a chained key."""
    if found > MAX_CHAIN_SORTED:
        text = f"The search finds more than {MAX_CHAIN_SORTED} resources, which cannot be sorted by a chained parameter. Narrow it."
        raise Problem("invalid", text)
