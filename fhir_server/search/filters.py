"""The condition language: the one closed algebra that search, scope, compartment and consent compile to.

A *row* is a stored resource; its *entries* are the typed values the search parameters extract from it.
Every entry, like every row, carries a visibility class, and a condition is always asked *in a window*
(see :mod:`fhir_server.search.visibility`): only entries whose class the window admits exist for it.
``Not`` is therefore "no admitted entry ..." and never a complement over what is hidden.

:mod:`fhir_server.search.match` gives the meaning; a store translates.  An unknown node is an error,
never "true".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
class TextIs:
    """A string.  ``prefix`` and ``contains`` compare the folded value, ``exact`` the value as written."""

    value: str
    mode: Literal["prefix", "exact", "contains"]


@dataclass(frozen=True, slots=True)
class DateIs:
    """A date interval compared by FHIR prefix; instants in microseconds since 1970 UTC, half open [lo, hi)."""

    prefix: Prefix
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class QuantityIs:
    """A number or quantity compared by FHIR prefix to [lo, hi]; a unit test only where given ("" = none stated).

    ``unit`` matches the entry's code or its human unit text when ``system`` is None, as the R4 page asks.
    """

    prefix: Prefix
    lo: float
    hi: float
    value: float
    system: str | None = None
    unit: str | None = None


Predicate = TokenIs | RefersTo | TextIs | DateIs | QuantityIs


@dataclass(frozen=True, slots=True)
class Has:
    """Some admitted entry of search parameter ``param`` passes ``test``."""

    param: str
    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Present:
    """Some admitted entry of ``param`` exists (``:missing=false``)."""

    param: str


@dataclass(frozen=True, slots=True)
class IdIs:
    """The row's logical id is one of these."""

    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class OfPatient:
    """The row belongs to one of these patients (by its deciding subject, not by being mentioned in it)."""

    patients: frozenset[str]


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


Filter = Has | Present | IdIs | OfPatient | AllOf | AnyOf | Not

EVERYTHING = AllOf(())
NOTHING = AnyOf(())
