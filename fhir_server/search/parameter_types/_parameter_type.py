"""What every search parameter type declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fhir_server.jsontext import Path
from fhir_server.search.filters import Predicate
from fhir_server.search.rows import Scalar

Found = tuple[tuple[Scalar, ...], Path]
"""The value of an index entry, and the path from the element to the part of it that gave the value."""


More = tuple[str, str, tuple[str, str], Path]
"""A modifier, kind and value of an entry that answers it, and the path from the element to the part that gave the value."""


def no_more(value: Any) -> Iterable[More]:
    """No entries of modifiers."""
    return ()


@dataclass(frozen=True, slots=True)
class ValueContext:
    """What a client's text depends on: modifier, target types of the parameter, the server's base URL, now (microseconds)."""

    modifier: str | None = None
    targets: tuple[str, ...] = ()
    base: str = ""
    now: int = 0


@dataclass(frozen=True, slots=True)
class ParameterType:
    """A search parameter type (http://hl7.org/fhir/R4/search.html#ptypes).

    ``entry``        the kind of its index entries, see :class:`fhir_server.search.rows.Entry`
    ``suffixes``     the datatypes that it takes values from, as written in the member names of choice elements
    ``modifiers``    the supported modifiers, apart from ``missing`` and, for references, type names
    ``extract``      (value of an element, the server's base URL) -> values of index entries
    ``extract_more`` value of an element -> entries that answer a modifier, under the name ``parameter:modifier``
    ``parse_value``  one value of an or-list, still escaped -> its predicate; raises ValueError that says what is wrong
    """

    entry: str
    suffixes: tuple[str, ...]
    modifiers: frozenset[str]
    extract: Callable[[Any, str], Iterable[Found]]
    parse_value: Callable[[str, ValueContext], Predicate]
    extract_more: Callable[[Any], Iterable[More]] = no_more
