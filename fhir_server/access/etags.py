"""The ETag of a version as one caller sees it, and the headers that name ETags (http://hl7.org/fhir/R4/http.html#versions, RFC 9110 13.1).

What a caller sees of a row may change without a write of the row: when a row that it refers to becomes hidden or visible, when a label is
added, when a restriction begins.  The number of the version stays, the body does not.  So for a caller from whom anything can be hidden the
ETag is ``W/"number-digest"``, with a digest of the body as this caller sees it; for all others it is ``W/"number"``.  R4 recommends the
number alone; but then a client would keep, and a 304 would confirm, a body that is no longer right.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from fhir_server.access.view import VisibleVersion

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


def etag(version: VisibleVersion) -> str:
    """The ETag of a version."""
    return f'W/"{_opaque(version)}"'


def names_body(header: str, version: VisibleVersion) -> bool:
    """Whether an ``If-None-Match`` header names this version with this body, so that the client need not receive it again."""
    tags = _tags(header)
    return "*" in tags or _opaque(version) in tags


def names_version(header: str, version: VisibleVersion) -> bool:
    """Whether an ``If-Match`` header names this version: by its ETag, or by its number as in ``meta.versionId``."""
    tags = _tags(header)
    return "*" in tags or str(version.version) in tags or _opaque(version) in tags


def _opaque(version: VisibleVersion) -> str:
    if version.is_complete or not version.body:
        return str(version.version)
    return f"{version.version}-{blake2b(version.body, digest_size=8).hexdigest()}"


def _tags(header: str) -> frozenset[str]:
    """The opaque tags of a header; a text without quotation marks, which some clients send, is one itself."""
    tags = _TAG.findall(header)
    return frozenset(tags) if tags else frozenset({header.strip()})
