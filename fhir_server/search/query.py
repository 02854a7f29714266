"""Parses the query string of a search (http://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fhir_server.errors import Problem
from fhir_server.search.criteria import UnknownParameterError, criterion
from fhir_server.search.filters import Filter
from fhir_server.search.index import parameters
from fhir_server.search.limits import all_of, require_searchable
from fhir_server.search.result_parameters import CONTROLS, DEFAULT_COUNT, DEFAULT_TOTAL, Include, ResultParameters
from fhir_server.search.rows import SortKey
from fhir_server.search.suggestions import suggestion

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search.

    ``conditions``  type -> the condition on its rows
    ``count``    rows for each page (0: ``summary`` is "count")
    ``applied``  the pairs that have an effect, for the self link
    ``ignored``  the names that have none (only in lenient handling)
    ``cursor``   the text of ``_page``, or None
    """

    conditions: Mapping[str, Filter]
    sort: tuple[SortKey, ...] = ()
    count: int = DEFAULT_COUNT
    total: Literal["none", "accurate", "estimate"] = DEFAULT_TOTAL
    summary: Literal["count", "true", "text", "data", "false"] = "false"
    elements: tuple[str, ...] = ()
    includes: tuple[Include, ...] = ()
    revincludes: tuple[Include, ...] = ()
    applied: tuple[Pair, ...] = ()
    ignored: tuple[str, ...] = ()
    cursor: str | None = None

    @property
    def where(self) -> Filter:
        """The condition of a search of one type."""
        (condition,) = self.conditions.values()
        return condition


@dataclass(slots=True)
class _Parts:
    applied: list[Pair] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def parse(types: Sequence[str], pairs: Sequence[Pair], *, strict: bool, now: int, base: str) -> Query:
    """Parse decoded name-value pairs to a search of ``types``; ``now`` in microseconds, ``base`` is the server's FHIR base URL.

    Each criterion must be a search parameter of all the types.

    Raises Problem ``invalid`` for a parameter that is malformed or not supported; if ``strict``, also for unknown names and sort keys.
    """
    require_searchable(pairs)
    parts, controls = _Parts(), ResultParameters(tuple(types))
    conditions: dict[str, list[Filter]] = {type: [] for type in types}
    for name, value in pairs:
        if name.partition(":")[0] in CONTROLS:
            parts.applied.extend(controls.add(name, value))
            continue
        try:
            found = [criterion(type, name, value, now, base) for type in types]
        except UnknownParameterError:
            if strict:
                raise _unknown(types, name) from None
            parts.ignored.append(name)
            continue
        for type, part in zip(types, found, strict=True):
            conditions[type].append(part)
        parts.applied.append((name, value))
    for refusal in controls.refused_keys:
        if strict:
            raise Problem("invalid", refusal)
        parts.ignored.append("_sort")
    only_count = controls.count == 0 or controls.summary == "count"
    return Query(
        {type: all_of(found) for type, found in conditions.items()},
        controls.sort, 0 if only_count else controls.count, controls.total,
        "count" if only_count else controls.summary, controls.elements,
        tuple(controls.includes), tuple(controls.revincludes), tuple(parts.applied), tuple(dict.fromkeys(parts.ignored)),
        controls.cursor,
    )  # fmt: skip


def condition(type: str, pairs: Sequence[Pair], now: int, base: str) -> Filter:
    """The condition of these pairs alone (in a scope, a conditional create).  Raises Problem ``invalid`` for any other parameter."""
    require_searchable(pairs)
    try:
        return all_of([criterion(type, name, value, now, base) for name, value in pairs])
    except UnknownParameterError as unknown:
        raise _unknown((type,), str(unknown)) from None


def _unknown(types: Sequence[str], name: str) -> Problem:
    code = name.partition(":")[0]
    type = next((type for type in types if code not in parameters(type)), types[0])
    return Problem("invalid", f"{type} has no search parameter {name!r}.{suggestion(code, (*parameters(type), *CONTROLS))}")
