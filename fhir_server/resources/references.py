"""The grammar of literal references: ``[base/]Type/id[/_history/version]`` (http://hl7.org/fhir/R4/references.html#literal).

Every module that must decide what a reference names uses a function of this module. The functions differ in what they accept
around ``Type/id``: a base URL before it, ``/_history/version`` after it, and a fragment (``#...``) or query (``?...``) at the end.

=====================  ========  ========  ===================
function               base URL  version   fragment or query
=====================  ========  ========  ===================
exact_target           no        no        no
versioned_target       no        accepted  no
relative_target        no        accepted  accepted
type_at_end            accepted  accepted  no
written_type           accepted  accepted  fragment; or ``Type?query``
without_base           removed   removed   removed
=====================  ========  ========  ===================
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple

from fhir_server.resources import definitions

ID_PATTERN: Final = r"[A-Za-z0-9\-.]{1,64}"
"""The datatype ``id`` of R4: of logical ids and of version ids."""

ID: Final = re.compile(ID_PATTERN)

Target = tuple[str, str]
"""Resource type and logical id."""

_TYPE: Final = r"[A-Z][A-Za-z]+"
_VERSION: Final = rf"(?:/_history/{ID_PATTERN})?"
_EXACT: Final = re.compile(rf"({_TYPE})/({ID_PATTERN})")
_VERSIONED: Final = re.compile(rf"({_TYPE})/({ID_PATTERN}){_VERSION}")
_RELATIVE: Final = re.compile(rf"({_TYPE})/({ID_PATTERN}){_VERSION}(?:[?#].*)?")
_AT_END: Final = re.compile(rf"(?:^|/)({_TYPE})/{ID_PATTERN}{_VERSION}$")
_VERSION_OR_REST: Final = re.compile(r"/_history/|[?#]")
_WRITTEN: Final = re.compile(rf"(https?://[^?#]*/)?({_TYPE})(?:/{ID_PATTERN}{_VERSION}(?:#.*)?|\?.*)")


class WrittenType(NamedTuple):
    """The resource type that a reference states, and whether the reference is an absolute URL."""

    type: str
    absolute: bool


def exact_target(text: str) -> Target | None:
    """(type, id) of ``Type/id`` and nothing else; None for any other text."""
    return _target(_EXACT.fullmatch(text))


def versioned_target(text: str) -> Target | None:
    """(type, id) of ``Type/id`` or ``Type/id/_history/version``; None for any other text."""
    return _target(_VERSIONED.fullmatch(text))


def relative_target(text: str) -> Target | None:
    """(type, id) of a relative reference; a version, a fragment (``#part``) and a query (``?x=1``) are ignored.  None: not relative."""
    return _target(_RELATIVE.fullmatch(text))


def type_at_end(text: str) -> str | None:
    """The resource type in a relative or absolute reference that ends in ``Type/id`` or a version of it; None for any other text."""
    match = _AT_END.search(text)
    return match[1] if match else None


def written_type(text: str) -> WrittenType | None:
    """The type that a relative reference, an http URL or a conditional reference (``Type?criteria``) states; None for any other text."""
    match = _WRITTEN.fullmatch(text)
    return WrittenType(match[2], match[1] is not None) if match else None


def without_base(reference: str, base: str) -> str:
    """A reference below ``base``, or a relative one, without base, version, fragment and query: ``Type/id``; others unchanged."""
    text = reference.removeprefix(base + "/") if reference.startswith(base + "/") else reference
    return _VERSION_OR_REST.split(text, maxsplit=1)[0]


def is_local(reference: str) -> bool:
    """Whether a relative reference has the form ``Type/id`` with a resource type of R4."""
    type, _, id = reference.partition("/")
    return type in _types() and ID.fullmatch(id) is not None


@functools.cache
def _types() -> frozenset[str]:
    return frozenset(definitions.types())


def _target(match: re.Match[str] | None) -> Target | None:
    return (match[1], match[2]) if match else None
