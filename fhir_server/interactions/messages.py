"""Requests and responses of the FHIR API as plain values, and what the audit log records about a request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, quote_plus

import msgspec

from fhir_server.access.etags import etag
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import ShownRow
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import http_date
from fhir_server.errors import Problem
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import LogEntry, Transaction

JSON = b"application/fhir+json; charset=utf-8"
XML = b"application/fhir+xml; charset=utf-8"
NDJSON = b"application/fhir+ndjson"
ANY = b"*/*"
PLAIN_JSON = b"application/json"
_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~:/|,$-]*")
JSON_TYPES = {"application/fhir+json", "application/json", "text/json"}
XML_TYPES = {"application/fhir+xml", "application/xml", "text/xml"}


class Request(msgspec.Struct):
    """One request.

    ``path``     the URL path below the FHIR base, split at slashes
    ``query``    the query string's parameters, decoded, in order
    ``headers``  by lower-case name
    ``now``      when the request arrived, in microseconds since 1970 UTC
    ``address``  the IP address it came from, or ""
    ``id``       the id that the answer bears (:mod:`fhir_server.request_ids`), or ""
    ``proven``   thumbprint of the key that signed a proof of this request (DPoP), or ""
    ``caller``   who asks, in a request that a page of this server makes for a person; None: the ``Authorization`` header says it
    """

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes
    now: int
    address: str = ""
    id: str = ""
    proven: str = ""
    caller: Principal | None = None

    def preference(self, name: Literal["return", "handling"], default: str) -> str:
        """The value of a ``Prefer`` directive (RFC 7240; http://hl7.org/fhir/R4/http.html#ops)."""
        if "prefer" not in self.headers:
            return default
        directive = re.search(rf"(?:^|[,;\s]){name}=\"?([A-Za-z]+)", self.headers["prefer"])
        return directive.group(1) if directive else default

    @property
    def prefers_async(self) -> bool:
        """Whether the request has the preference to be answered later (RFC 7240 4.1)."""
        return "prefer" in self.headers and _ASYNC.search(self.headers["prefer"]) is not None

    def form(self) -> tuple[tuple[str, str], ...]:
        """Parse the body as form fields.  Raises Problem ``media_type`` or ``invalid``."""
        declared = media_type(self.headers.get("content-type", ""))
        if not self.body and not declared:
            return ()  # the parameters are in the URL
        if declared != "application/x-www-form-urlencoded":
            raise Problem("media_type", "A search by POST requires Content-Type application/x-www-form-urlencoded.")
        return parse_query(self.body)

    def take_body(self) -> bytes:
        """The body, which the request no longer holds: it may be large."""
        body, self.body = self.body, b""
        return body

    def require_json(self) -> None:
        """Require a body in JSON, as one that came in XML also is by now.  Raises Problem ``media_type``."""
        if media_type(self.headers.get("content-type", "")) not in JSON_TYPES:
            raise Problem("media_type", "The body requires Content-Type application/fhir+json or application/fhir+xml.")


class Response(msgspec.Struct):
    """One response.

    ``parts``   the rest of a large body, which are sent one by one: to join them would take long
    ``stream``  a body of unknown length, sent in parts
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncIterator[bytes] | None = None
    parts: list[bytes] = []


class AuditedEntry(NamedTuple):
    """A Bundle entry for the audit log.  ``status`` is the entry's own HTTP status, or 0 in a transaction."""

    request: Request
    status: int


class LabelChange(NamedTuple):
    """Labels, tags and profiles (``system|code``, or a URL) that a request asked to add to a resource, or else to remove."""

    added: bool
    items: tuple[str, ...]


class RecordedWrite(NamedTuple):
    """The HTTP status in the line that was stored with a write; ``pending``: its entry, if the line is still to be appended."""

    status: int
    pending: LogEntry | None = None


@dataclass(slots=True)
class AuditContext:
    """What the audit log records about a request and only its handler knows.  Handlers fill it in.

    ``permissions``  the caller's, after authentication
    ``just_admitted``  whether nothing was waited for since the permissions were resolved, so that a write may begin with them
    ``entries``      the entries of a batch or transaction
    ``labels``       what a change of labels asked for
    ``shown``        the patients, type and id of each row that the caller's View gave out
    ``store_lines``  stores the lines of requests that were answered before, for a caller who asks for them
    ``with_write``   adds the request's line, with its HTTP status, to the transaction of its write; None if it did not
    ``recorded``     the line that was stored with the write, if one was
    """

    permissions: Permissions | None = None
    just_admitted: bool = False
    entries: list[AuditedEntry] = field(default_factory=list)
    labels: LabelChange | None = None
    shown: list[ShownRow] = field(default_factory=list)
    store_lines: Callable[[], Awaitable[None]] | None = None
    with_write: Callable[[Transaction, int], RecordedWrite | None] | None = None
    recorded: RecordedWrite | None = None


def media_type(header: str) -> str:
    """The media type in a Content-Type or Accept header, in lower case, without parameters."""
    return header.partition(";")[0].strip().lower()


def header_fields(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; the values of a repeated one are a list (RFC 9110 5.3), so that none of them is ignored."""
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(fields) < len(raw):
        for repeated in fields:
            fields[repeated] = ", ".join([value.decode("latin-1") for name, value in raw if name.decode("latin-1") == repeated])
    return fields


def parse_query(query: bytes) -> tuple[tuple[str, str], ...]:
    """Parse a query string or form into name and value pairs.  Raises Problem ``invalid``."""
    if not query:
        return ()
    try:
        return tuple(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=300))
    except ValueError:
        raise Problem("invalid", "The parameters must be percent-encoded UTF-8, at most 300.") from None


def format_query(pairs: Iterable[tuple[str, str]]) -> str:
    """Format pairs as a query string that :func:`parse_query` parses."""
    return "&".join([f"{_quote(name)}={_quote(value)}" for name, value in pairs])


def _quote(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else quote_plus(text, safe=":/|,$")


def version_headers(version: VisibleVersion) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of a version: ETag and Last-Modified."""
    return ((b"etag", etag(version).encode()), (b"last-modified", http_date(version.updated).encode()))
