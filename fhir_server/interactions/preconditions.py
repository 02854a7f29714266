"""The preconditions of requests, alone and in Bundles (RFC 9110, section 13; http://hl7.org/fhir/R4/http.html#cread, #concurrency).

=======================  ===========================  ==========================================================================
header                   read, vread, $meta           update, delete, $meta-add, $meta-delete
=======================  ===========================  ==========================================================================
``If-Match``             412 unless it names it       412 unless it names the current version; 404 if there is none
``If-Unmodified-Since``  412 if it changed since      412 if it changed since
``If-None-Match``        304 if it names the body     412 if it names the current version
``If-Modified-Since``    304 if it has not changed    ignored, as RFC 9110 requires
=======================  ===========================  ==========================================================================

They are evaluated in this order.  ``If-Unmodified-Since`` is ignored beside ``If-Match``, ``If-Modified-Since`` beside
``If-None-Match``, and both if they are no date.  A create takes ``If-None-Exist``.  A precondition that an interaction cannot keep
is refused: who sends one relies on it.

Everything is judged by the version that the caller sees.  Its time does not change when a part becomes hidden or visible, so
``If-Modified-Since`` gives 304 only to callers from whom nothing can be hidden.  Times count in seconds; If-Match is exact.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from fhir_server.access import etags
from fhir_server.access.view import not_found
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import SECOND, micros_of
from fhir_server.errors import Problem
from fhir_server.interactions.messages import JSON, Request, Response, version_headers
from fhir_server.search.parameter_types.date import interval

IF_NONE_EXIST: Final = frozenset({"if-none-exist"})
_TAGS: Final = frozenset({"if-match", "if-none-match"})
_REFUSABLE: Final = _TAGS | IF_NONE_EXIST
ALL: Final = _REFUSABLE | {"if-modified-since", "if-unmodified-since"}


def require_only(request: Request, taken: frozenset[str] = frozenset()) -> None:
    """Require that the request has no precondition but those that its interaction takes, and that entity tags are well-formed.

    Raises Problem ``invalid``.
    """
    if _REFUSABLE.isdisjoint(request.headers):
        return
    for name in sorted(_REFUSABLE & request.headers.keys()):
        if name not in taken:
            raise Problem("invalid", f"This request does not take {name.title()}.")
        if name in _TAGS and not etags.is_well_formed(request.headers[name]):
            raise Problem("invalid", f'{name.title()} takes *, or entity tags such as W/"1", separated by commas.')


def answer(request: Request, version: VisibleVersion, body: bytes | None = None) -> Response:
    """The response to a read: the version, with ``body`` in place of its own if it is given, or 304.

    Raises Problem ``precondition`` or ``invalid``.
    """
    if not ALL.isdisjoint(request.headers):
        require_only(request, _TAGS)
        _require_named(request, version)
        if _is_known(request, version):
            return Response(304, headers=version_headers(version))
    return Response(200, version.body if body is None else body, ((b"content-type", JSON), *version_headers(version)))


def require_unchanged(request: Request, visible: VisibleVersion | None) -> None:
    """Require that the preconditions of a change hold for the version that the caller sees (None: hidden, deleted or absent).

    Raises Problem ``precondition``, ``not_found`` or ``invalid``.
    """
    require_only(request, _TAGS)
    if visible is None:
        if "if-match" in request.headers:
            raise not_found(*request.path[:2])
        return
    _require_named(request, visible)
    excluded = request.headers.get("if-none-match")
    if excluded is not None and etags.names_version(excluded, visible):
        raise Problem("precondition", "If-None-Match names the current version.")


def kept_by_creation(request: Request) -> Request:
    """The request of a conditional update that creates, without the preconditions that hold because nothing matches.

    Raises Problem ``precondition`` or ``invalid``.
    """
    require_only(request, _TAGS)
    require_no_version(request, matches=0)
    return msgspec.structs.replace(request, headers={name: text for name, text in request.headers.items() if name not in _TAGS})


def require_no_version(request: Request, *, matches: int) -> None:
    """Require that a conditional write that matches no resource, or several, has no ``If-Match``.  Raises Problem ``precondition``."""
    if "if-match" in request.headers:
        raise Problem("precondition", "If-Match names a version, and the criteria match " + ("several resources." if matches else "none."))


def _require_named(request: Request, version: VisibleVersion) -> None:
    required = request.headers.get("if-match")
    if required is not None:
        if not etags.names_version(required, version):
            raise Problem("precondition", "If-Match does not name the current version.")
        return
    since = _end(request.headers.get("if-unmodified-since"))
    if since is not None and version.updated >= since:
        raise Problem("precondition", "The resource has changed since the time in If-Unmodified-Since.")


def _is_known(request: Request, version: VisibleVersion) -> bool:
    known = request.headers.get("if-none-match")
    if known is not None:
        return etags.names_body(known, version)
    since = _end(request.headers.get("if-modified-since"))
    return since is not None and version.is_complete and version.updated < since


def _end(text: str | None) -> int | None:
    """The first instant after an HTTP date (RFC 9110 5.6.7) or a FHIR instant, in the precision of the text; None for other texts."""
    if text is None:
        return None
    try:
        return micros_of(parsedate_to_datetime(text)) + SECOND
    except (ValueError, TypeError, IndexError, OverflowError):
        pass
    try:
        return interval(text)[1] if "T" in text else None
    except ValueError:
        return None
