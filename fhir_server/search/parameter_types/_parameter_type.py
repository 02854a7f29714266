"""What every kind of search parameter declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fhir_server.jsontext import Path
from fhir_server.search.filters import Predicate
from fhir_server.search.rows import Scalar

# An entry's value, and the path from the element to the part of it that gave the value.
Found = tuple[tuple[Scalar, ...], Path]


@dataclass(frozen=True, slots=True)
class ValueContext:
    """What a value is read against: the modifier, the parameter's target types, our base URL, and now (microseconds)."""

    modifier: str | None = None
    targets: tuple[str, ...] = ()
    base: str = ""
    now: int = 0


@dataclass(frozen=True, slots=True)
class ParameterType:
    """One kind of search parameter (http://hl7.org/fhir/R4/search.html#ptypes).

    ``entry``      the kind of its index entries, see :class:`fhir_server.search.rows.Entry`
    ``suffixes``   datatypes, as written in the member names of choice elements, that it takes values from
    ``modifiers``  those it supports, beside ``missing`` (and, for references, type names)
    ``extract``    (an element's value, our base URL) -> entry values
    ``test``       one or-value, still escaped -> the test it stands for; ValueError says what is wrong with the text
    """

    entry: str
    suffixes: tuple[str, ...]
    modifiers: frozenset[str]
    extract: Callable[[Any, str], Iterable[Found]]
    parse_value: Callable[[str, ValueContext], Predicate]
