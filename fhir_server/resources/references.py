"""The one parser of literal references (http://hl7.org/fhir/R4/references.html#literal).

:func:`parse_reference` reads exactly R4's grammar. Everything that follows a reference uses it, so that all legal ways to write a
reference lead to the same row. A URL of this server is first made relative (:mod:`fhir_server.resources.server_base`).

==============  ===============================================  =======================================================
kind            form                                             accepted
==============  ===============================================  =======================================================
``relative``    ``Type/id``, ``Type/id/_history/version``        everywhere
``fragment``    ``#``, ``#id``                                   everywhere; validation checks the contained resource
``absolute``    ``scheme://...``                                 everywhere; never followed, unless it leads to this server
``urn``         ``urn:uuid:...``, ``urn:oid:...``                where a Bundle's entry can have it as its fullUrl
``conditional`` ``Type?criteria``                                in transactions and ``load``, which resolve it
==============  ===============================================  =======================================================

R4 gives no meaning to ``Type/id#part`` or ``Type/id?x=1``: contained resources are not referred to from outside. Such a text is no
reference, and no more are other schemes (``mailto:``), blanks, and types that R4 does not have. Only :func:`url_target` reads URLs,
which may have a query or a fragment.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, NamedTuple

from fhir_server.resources import definitions

ID_PATTERN: Final = r"[A-Za-z0-9\-.]{1,64}"
"""The datatype ``id`` of R4: of logical ids and of version ids."""

ID: Final = re.compile(ID_PATTERN)

Target = tuple[str, str]
"""Resource type and logical id."""

Kind = Literal["relative", "fragment", "absolute", "urn", "conditional"]

_TYPE: Final = r"[A-Z][A-Za-z]+"
_RELATIVE: Final = re.compile(rf"({_TYPE})/({ID_PATTERN})(?:/_history/({ID_PATTERN}))?")
_FRAGMENT: Final = re.compile(rf"#(?:{ID_PATTERN})?")
# The characters that no URL contains are white space, control characters and those of RFC 3986, appendix C.
_ABSOLUTE: Final = re.compile(r'[A-Za-z][A-Za-z0-9+.\-]*://[^\s\x00-\x20\x7f/?#\\"<>^`{}][^\s\x00-\x20\x7f\\"<>^`{}]*')
_UUID: Final = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_URN: Final = re.compile(rf"urn:(?:uuid:{_UUID}|oid:[0-2](?:\.(?:0|[1-9][0-9]*))+)")
_CONDITIONAL: Final = re.compile(rf"({_TYPE})\?\S+")
_MAX_CACHED: Final = 200  # characters of a reference
_RESTFUL: Final = re.compile(rf"(\S+)/({_TYPE})/({ID_PATTERN})(?:/_history/({ID_PATTERN}))?")
_URL_TARGET: Final = re.compile(rf"({_TYPE})/({ID_PATTERN})(?:/_history/{ID_PATTERN})?(?:[?#].*)?")


class LiteralReference(NamedTuple):
    """A literal reference: its kind, and as far as it states them the base URL, resource type, id and version."""

    kind: Kind
    type: str = ""
    id: str = ""
    version: str = ""
    base: str = ""


_NO_TARGET: Final[dict[str, LiteralReference]] = {kind: LiteralReference(kind) for kind in ("fragment", "absolute", "urn")}


def parse_reference(text: str) -> LiteralReference | None:
    """The literal reference that a text is by R4's grammar; None for any other text.

    The type of a relative or conditional reference is one of R4. An absolute URL may name a type that R4 does not have.
    """
    return _parsed(text) if len(text) < _MAX_CACHED else _parsed.__wrapped__(text)


@functools.lru_cache(8192)  # the same few patients, visits and practitioners are named again and again
def _parsed(text: str) -> LiteralReference | None:
    match = _RELATIVE.fullmatch(text)
    if match is not None:
        return LiteralReference("relative", match[1], match[2], match[3] or "") if match[1] in _types() else None
    if text[:1] == "#":
        return _NO_TARGET["fragment"] if _FRAGMENT.fullmatch(text) else None
    if text[:4] == "urn:":
        return _NO_TARGET["urn"] if _URN.fullmatch(text) else None
    if _ABSOLUTE.fullmatch(text):
        return restful(text) or _NO_TARGET["absolute"]
    match = _CONDITIONAL.fullmatch(text)
    return LiteralReference("conditional", match[1]) if match is not None and match[1] in _types() else None


def restful(text: str) -> LiteralReference | None:
    """An absolute URL of the form ``base/Type/id``, with or without a version; None for any other text."""
    match = _RESTFUL.fullmatch(text) if "://" in text and _ABSOLUTE.fullmatch(text) else None
    return LiteralReference("absolute", match[2], match[3], match[4] or "", match[1]) if match is not None else None


def exact_target(text: str) -> Target | None:
    """(type, id) of ``Type/id`` and nothing else; None for any other text."""
    reference = parse_reference(text)
    return (reference.type, reference.id) if reference and reference.kind == "relative" and not reference.version else None


def versioned_target(text: str) -> Target | None:
    """(type, id) of ``Type/id`` or ``Type/id/_history/version``; None for any other text."""
    return _versioned_target(text) if len(text) < _MAX_CACHED else _versioned_target.__wrapped__(text)


@functools.lru_cache(8192)
def _versioned_target(text: str) -> Target | None:
    match = _RELATIVE.fullmatch(text)
    return (match[1], match[2]) if match is not None and match[1] in _types() else None


def url_target(text: str) -> Target | None:
    """(type, id) that a relative URL leads to: as :func:`versioned_target`, with a query or a fragment at the end allowed."""
    match = _URL_TARGET.fullmatch(text)
    return (match[1], match[2]) if match is not None and match[1] in _types() else None


def type_at_end(text: str) -> str | None:
    """The resource type in a relative or absolute reference to ``Type/id`` or a version of it; None for any other text."""
    reference = parse_reference(text)
    return reference.type or None if reference is not None and reference.kind != "conditional" else None


@functools.cache
def _types() -> frozenset[str]:
    return frozenset(definitions.types())
