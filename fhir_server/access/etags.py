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

from fhir_server.access.visible_versions import VisibleVersion

# Some clients send a tag without its quotation marks.
_TAG: Final = re.compile(r'(?:W/)?(?:"([^"]*)"|([A-Za-z0-9.\-]+))')
_LIST: Final = re.compile(rf"[ \t]*(?:\*|,*[ \t]*{_TAG.pattern}(?:[ \t]*,[ \t]*(?:{_TAG.pattern})?)*)[ \t]*")


def etag(version: VisibleVersion) -> str:
    """The ETag of a version."""
    return f'W/"{_opaque(version)}"'


def is_well_formed(header: str) -> bool:
    """Whether a header is ``*`` or a list of entity tags (RFC 9110 8.8.3), of which some may be without quotation marks."""
    return _LIST.fullmatch(header) is not None


def names_tag(header: str, tag: str) -> bool:
    """Whether an ``If-None-Match`` header names this opaque tag."""
    return not {"*", tag}.isdisjoint(_tags(header))


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
    """The opaque tags of a header; weak and strong ones count alike, as R4's tags are weak."""
    return frozenset({"*"}) if header.strip() == "*" else frozenset(quoted or bare for quoted, bare in _TAG.findall(header))
