"""The condition language to which searches, scopes, compartments and consent compile.

A *row* is a stored resource; its *entries* are the typed values that search parameters extract from it. Every row and every entry has
a visibility class. A condition is always evaluated within a clause (see :mod:`fhir_server.search.visibility`): only entries whose class
the clause admits exist for it. ``Not`` therefore means "no admitted entry ..." and discloses nothing about hidden entries.

A *step* (:class:`RefersToMatch`, :class:`ReferredBy`) leads to rows of another type. It has the Visibility of that type, and only what
this admits exists for it. A step without one admits nothing; the View fills it in (:mod:`fhir_server.search.steps`).

:mod:`fhir_server.search.match` defines the meaning; stores translate the language. An unknown node is an error and never "true".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fhir_server.search.visibility import Visibility

Prefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]


@dataclass(frozen=True, slots=True)
class TokenIs:
    """A coding: ``system`` None = any system, "" = entry has none; ``code`` None = any code of that system."""

    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class RefersTo:
    """A reference or uri whose target text is one of these: ``Type/id``, or an absolute URL or URN."""

    targets: frozenset[str]


@dataclass(frozen=True, slots=True)
class UnderUrl:
    """A uri that is this URL, or is below it: a path segment, a version (``|1.0``) or a fragment follows."""

    url: str


URL_ENDS = ("/", "|", "#")
"""What separates a URL from what is below it."""


@dataclass(frozen=True, slots=True)
class TextIs:
    """A string.  ``exact`` compares the value as written, the other modes the folded value."""

    value: str
    mode: Literal["prefix", "exact", "contains", "equal"]


@dataclass(frozen=True, slots=True)
class WordIs:
    """Words of which one is this, folded; see :mod:`fhir_server.search.words`."""

    word: str


@dataclass(frozen=True, slots=True)
class NearTo:
    """A point on the unit sphere that is at most the straight line ``chord`` away from (x, y, z)."""

    x: float
    y: float
    z: float
    chord: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which ``z`` the point lies, by which indexes limit the search."""
        return self.z - self.chord, self.z + self.chord

    @property
    def square(self) -> float:
        """The square of the chord, with which stores compare."""
        return self.chord * self.chord


@dataclass(frozen=True, slots=True)
class DateIs:
    """A date interval compared by FHIR prefix; instants in microseconds since 1970 UTC, half open [lo, hi)."""

    prefix: Prefix
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class QuantityIs:
    """A number or quantity compared by FHIR prefix to [lo, hi]; the unit counts only if given ("" = without a unit).

    ``unit`` matches the entry's code or its unit text if ``system`` is None, as R4 requires.
    """

    prefix: Prefix
    lo: float
    hi: float
    value: float
    system: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class NumbersAre:
    """Two numbers of one element, each compared by FHIR prefix: ``z`` and ``x`` of an entry of the kind position."""

    first: QuantityIs
    second: QuantityIs


Predicate = TokenIs | RefersTo | UnderUrl | TextIs | WordIs | NearTo | DateIs | QuantityIs | NumbersAre


@dataclass(frozen=True, slots=True)
class Has:
    """Some admitted entry of search parameter ``param`` satisfies ``predicate``."""

    param: str
    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Present:
    """Some admitted entry of ``param`` exists (``:missing=false``); ``kind`` is the kind of its entries."""

    param: str
    kind: str


@dataclass(frozen=True, slots=True)
class IdIs:
    """The row's logical id is one of these."""

    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class OfPatient:
    """The row belongs to one of these patients (as its subject, not as another participant)."""

    patients: frozenset[str]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All parts match; without parts, every row matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Some part matches; without parts, no row matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


@dataclass(frozen=True, slots=True)
class RefersToMatch:
    """Some admitted entry of reference parameter ``param`` names a row of ``type`` that ``visibility`` admits and that meets ``where``.

    ``by_canonical``: the entry is a canonical URL.  No store knows such a step: the View follows it
    (:mod:`fhir_server.search.canonical_steps`).
    """

    param: str
    type: str
    where: Filter
    visibility: Visibility | None = None
    by_canonical: bool = False


@dataclass(frozen=True, slots=True)
class ReferredBy:
    """Some row of ``type`` that ``visibility`` admits meets ``where`` and names this row by an admitted entry of reference ``param``.

    ``by_canonical``: as for :class:`RefersToMatch`.
    """

    type: str
    param: str
    where: Filter
    visibility: Visibility | None = None
    by_canonical: bool = False


@dataclass(frozen=True, slots=True)
class HasCodeOf:
    """Some admitted entry of one of ``params`` is a code of a value set, or a code above or below another.

    ``name`` is the value set's canonical URL or ``ValueSet/id``, or the code system of ``code``.  Entries of codes of the systems in
    ``implied`` have no system.  The View puts the codes in its place (:mod:`fhir_server.search.code_sets`): no store knows this node.
    """

    params: tuple[str, ...]
    relation: Literal["in", "above", "below"]
    name: str
    code: str = ""
    implied: frozenset[str] = frozenset()


Step = RefersToMatch | ReferredBy
Filter = Has | Present | IdIs | OfPatient | AllOf | AnyOf | Not | RefersToMatch | ReferredBy | HasCodeOf

EVERYTHING = AllOf(())
NOTHING = AnyOf(())
