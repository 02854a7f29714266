"""Rows as the condition language sees them: index entries, sort keys, and the position at which a page ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fhir_server.jsontext import Path

if TYPE_CHECKING:
    from fhir_server.search.visibility import Visibility

Scalar = str | int | float | None


class Entry(msgspec.Struct, frozen=True):
    """One index entry: a value that the search parameter ``param`` extracts from the element at ``path``.

    ``class_id``: the visibility class of the element.  ``kind`` fixes the shape of ``value``:

    - ``token``: (system or "", code or "")
    - ``reference``: (target,); parameters of type ``uri`` are of this kind too
    - ``string``: (folded, exact)
    - ``words``: (different words in order, each between spaces,), see :mod:`fhir_server.search.words`
    - ``position``: (x, y, z) of a point on the unit sphere; or (second, 0, first) of two numbers of one element
    - ``date``: (low, high), microseconds since 1970 UTC, half open
    - ``quantity``: (number, system or "", code or "", unit text or ""); parameters of type ``number`` have empty units
    """

    param: str
    kind: str
    value: tuple[Scalar, ...]
    path: Path = ()
    class_id: int = 0


@dataclass(frozen=True, slots=True)
class SearchableRow:
    """A row with its index entries, as :mod:`fhir_server.search.match` evaluates conditions on it.

    ``place``: the number of its first patient and the time at which it was stored (:mod:`fhir_server.store.row_order`).
    """

    type: str
    id: str
    patients: tuple[str, ...]
    class_id: int
    release_at: int
    entries: tuple[Entry, ...] = ()
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class SortKey:
    """Sorts by the least (ascending) or greatest (descending) visible value of ``param``; rows without a value come last.

    ``kind`` is that of Entry.  ``_id`` and ``_lastUpdated`` are ordinary parameters here, except that the value of ``_lastUpdated`` is
    always the greatest one: the time that the caller reads.

    ``steps``: of a chained key; then the values are those of the rows to which the steps lead, and ``param`` is the last parameter.
    """

    param: str
    kind: str
    descending: bool = False
    steps: tuple[SortStep, ...] = ()

    @property
    def by_greatest(self) -> bool:
        """Whether the greatest value of several counts."""
        return self.descending or self.param == "_lastUpdated"

    def sources(self, type: str) -> Iterator[tuple[str, str]]:
        """(type, parameter) of the entries that are its values, for rows of ``type``."""
        if not self.steps:
            yield type, self.param
        for step in self.steps:
            yield from step.key.sources(step.type)


@dataclass(frozen=True, slots=True)
class SortStep:
    """A step of a chained sort key: to the rows of ``type`` that ``visibility`` admits and that reference ``param`` names.

    ``key``: what is a value of these rows.  A step without a visibility leads nowhere; the View fills it in.
    """

    param: str
    type: str
    key: SortKey
    visibility: Visibility | None = None


class RowEntries(NamedTuple):
    """The logical id of a row, and some of its index entries, each once."""

    id: str
    entries: tuple[Entry, ...]


class Position(msgspec.Struct, frozen=True):
    """Where a page ended: the sort values and the logical id of its last row, which the caller has received."""

    keys: tuple[Scalar, ...]
    id: str


STALE_LINK = "The page link is not valid. Run the search again."
