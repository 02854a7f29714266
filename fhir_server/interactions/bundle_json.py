"""Bundles as JSON text, in parts: resources are not parsed and serialized again, and not copied, because they may be large."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring

from fhir_server.access.etags import etag
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import instant_text
from fhir_server.errors import Issue, outcome
from fhir_server.interactions.messages import format_query

_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_MODES = {mode: b',"search":{"mode":"%s"}}' % mode.encode() for mode in ("match", "include", "outcome")}
Entry = tuple[bytes, ...]
"""The parts of an entry's JSON text."""
_STATUS = {"create": "201 Created", "update": "200 OK", "delete": "204 No Content"}


def query_url(base: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The URL of a search or operation, with its parameters encoded."""
    query = format_query(pairs)
    url = f"{base}/{path}" if path else base
    return f"{url}?{query}" if query else url


def string(value: str) -> bytes:
    """A JSON string."""
    return encode_basestring(value).encode()  # what json.dumps makes of it without ensure_ascii


def searchset(entries: Iterable[Entry], *, links: Sequence[tuple[str, str]], total: int | None = None) -> list[bytes]:
    """A searchset Bundle (http://hl7.org/fhir/R4/bundle.html#searchset).  ``links`` are (relation, URL)."""
    head = b'{"resourceType":"Bundle","type":"searchset"'
    if total is not None:
        head += b',"total":%d' % total
    return _with_entries(head + _links(links), entries)


def entry(version: VisibleVersion, base: str, mode: str = "match", body: bytes | None = None) -> Entry:
    """An entry of a searchset, with ``body`` in place of the version's own body if it is given."""
    head = f'{{"fullUrl":"{base}/{version.type}/{version.id}","resource":'
    return head.encode(), version.body if body is None else body, _MODES[mode]


def note(*issues: Issue) -> Entry:
    """An entry of a searchset that says something about the search, as an OperationOutcome."""
    return b'{"resource":', outcome(issues), _MODES["outcome"]


def history(versions: Iterable[VisibleVersion], base: str, links: Sequence[tuple[str, str]], total: int | None) -> list[bytes]:
    """A history Bundle of versions, newest first (http://hl7.org/fhir/R4/http.html#history)."""
    entries: list[Entry] = []
    for version in versions:
        url = f"{base}/{version.type}/{version.id}"
        body = () if version.interaction == "delete" else (b'"resource":', version.body, b",")
        method = _METHODS[version.interaction]
        target = version.type if method == "POST" else f"{version.type}/{version.id}"
        entries.append(
            (
                b'{"fullUrl":%s,' % string(url),
                *body,
                b'"request":{"method":"%s","url":%s},"response":{"status":"%s","etag":%s,"lastModified":"%s"}}'
                % (
                    method.encode(),
                    string(target),
                    _STATUS[version.interaction].encode(),
                    string(etag(version)),
                    instant_text(version.updated).encode(),
                ),
            )
        )
    head = b'{"resourceType":"Bundle","type":"history"'
    if total is not None:
        head += b',"total":%d' % total
    return _with_entries(head + _links(links), entries)


def responses(type: str, entries: Iterable[Entry]) -> list[bytes]:
    """A Bundle of ``type`` batch-response or transaction-response."""
    return _with_entries(b'{"resourceType":"Bundle","type":"%s"' % type.encode(), entries)


def _links(links: Sequence[tuple[str, str]]) -> bytes:
    items = (b'{"relation":%s,"url":%s}' % (string(relation), string(url)) for relation, url in links)
    return b',"link":[' + b",".join(items) + b"]"


def _with_entries(head: bytes, entries: Iterable[Entry]) -> list[bytes]:
    """The parts of a Bundle that begins with ``head``."""
    parts = [head]
    before = b',"entry":['
    for entry in entries:
        parts += (before, *entry)
        before = b","
    parts.append(b"}" if len(parts) == 1 else b"]}")
    return parts
