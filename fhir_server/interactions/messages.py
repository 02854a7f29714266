"""A request and an answer of the FHIR API, as plain values."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl, quote_plus

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.clock import http_date
from fhir_server.errors import Problem

JSON = b"application/fhir+json; charset=utf-8"
NDJSON = b"application/fhir+ndjson"
_READ = {
    JSON: frozenset({"application/fhir+json", "application/json", "text/json", "json", "application/*", "*/*"}),
    NDJSON: frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson", "application/*", "*/*"}),
}
_PLAIN = re.compile(r"[A-Za-z0-9_.~:/|,$-]*")
_WRITTEN = {"application/fhir+json", "application/json", "text/json"}


class Request(msgspec.Struct):
    """One request.  ``path`` is below the FHIR base, split at slashes; ``pairs`` are the query's, decoded, in
    order.  For the audit journal: ``permissions`` is the caller's, once the door has let it in; ``entries`` are a Bundle's, each with
    the status it was answered with on its own (0: they stand or fall together).
    """

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    now: int
    permissions: Permissions | None = None
    entries: list[tuple[Request, int]] = []

    def preference(self, name: Literal["return", "handling"], default: str) -> str:
        """The value of a ``Prefer`` directive (RFC 7240; http://hl7.org/fhir/R4/http.html#ops)."""
        found = re.search(rf"(?:^|[,;\s]){name}=\"?([A-Za-z]+)", self.headers.get("prefer", ""))
        return found.group(1) if found else default

    def form(self) -> tuple[tuple[str, str], ...]:
        """The body's form fields.  Raises Problem ``media_type`` or ``invalid``."""
        if media_type(self.headers.get("content-type", "")) != "application/x-www-form-urlencoded":
            raise Problem("media_type", "A search by POST is sent as application/x-www-form-urlencoded.")
        return parse_query(self.body)

    def require_json(self) -> None:
        """Refuse a body that is not declared to be JSON.  Raises Problem ``media_type``."""
        if media_type(self.headers.get("content-type", "")) not in _WRITTEN:
            raise Problem("media_type", "This server takes application/fhir+json.")


class Response(msgspec.Struct):
    """One answer.  ``stream`` stands for a body of unknown length, sent as it is made."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncIterator[bytes] | None = None


def media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def parse_query(query: bytes) -> tuple[tuple[str, str], ...]:
    """Name and value pairs of a query string or form.  Raises Problem ``invalid``."""
    if not query:
        return ()
    try:
        return tuple(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=300))
    except ValueError:
        raise Problem("invalid", "The parameters are not percent-encoded UTF-8, or are too many.") from None


def format_query(pairs: Iterable[tuple[str, str]]) -> str:
    """The query string of these pairs; what :func:`decoded` reads back."""
    return "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in pairs])


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote_plus(text, safe=":/|,$")


def require_acceptable(request: Request, media: bytes = JSON) -> None:
    """Refuse what only another format than ``media`` would satisfy.  Raises Problem ``not_acceptable``."""
    wanted = ",".join(value for name, value in request.query if name == "_format") or request.headers.get("accept", "*/*")
    if not _acceptable(wanted, media):
        raise Problem("not_acceptable", f"This server answers in {media.decode().partition(';')[0]}.")


@lru_cache(256)
def _acceptable(wanted: str, media: bytes) -> bool:
    return any(media_type(item.replace(" ", "+")) in _READ[media] for item in wanted.split(","))


def version_headers(version: int, updated: int) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that name a version: ETag (weak, the version number) and Last-Modified."""
    return ((b"etag", b'W/"%d"' % version), (b"last-modified", http_date(updated).encode()))


def etag_version(header: str) -> str:
    """The version number in an ``If-Match`` or ``If-None-Match`` header, or the text as it stands."""
    found = re.fullmatch(r'\s*(?:W/)?"([^"]*)"\s*', header)
    return found.group(1) if found else header.strip()
