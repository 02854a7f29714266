"""Bundles as JSON text.  Entries are inserted as text: they are not parsed and serialized again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from fhir_server.access.etags import etag
from fhir_server.access.view import VisibleVersion
from fhir_server.clock import instant_text
from fhir_server.errors import Issue, outcome
from fhir_server.interactions.messages import format_query

_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_MODES = {mode: b',"search":{"mode":"%s"}}' % mode.encode() for mode in ("match", "include", "outcome")}
_STATUS = {"create": "201 Created", "update": "200 OK", "delete": "204 No Content"}


def query_url(base: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The URL of a search or operation, with its parameters encoded."""
    query = format_query(pairs)
    url = f"{base}/{path}" if path else base
    return f"{url}?{query}" if query else url


def string(value: str) -> bytes:
    """A JSON string."""
    return json.dumps(value, ensure_ascii=False).encode()


def searchset(entries: Iterable[bytes], *, links: Sequence[tuple[str, str]], total: int | None = None) -> bytes:
    """A searchset Bundle (http://hl7.org/fhir/R4/bundle.html#searchset).  ``links`` are (relation, URL)."""
    head = b'{"resourceType":"Bundle","type":"searchset"'
    if total is not None:
        head += b',"total":%d' % total
    return _with_entries(head + _links(links), entries)


def entry(version: VisibleVersion, base: str, mode: str = "match", body: bytes | None = None) -> bytes:
    """An entry of a searchset, with ``body`` in place of the version's own body if it is given."""
    head = f'{{"fullUrl":"{base}/{version.type}/{version.id}","resource":'
    return b"".join((head.encode(), version.body if body is None else body, _MODES[mode]))


def note(*issues: Issue) -> bytes:
    """An entry of a searchset that says something about the search, as an OperationOutcome."""
    return b'{"resource":' + outcome(issues) + _MODES["outcome"]


def history(versions: Iterable[VisibleVersion], base: str, links: Sequence[tuple[str, str]], total: int | None) -> bytes:
    """A history Bundle of versions, newest first (http://hl7.org/fhir/R4/http.html#history)."""
    entries = []
    for version in versions:
        url = f"{base}/{version.type}/{version.id}"
        body = b"" if version.interaction == "delete" else b'"resource":' + version.body + b","
        method = _METHODS[version.interaction]
        target = version.type if method == "POST" else f"{version.type}/{version.id}"
        entries.append(
            b'{"fullUrl":%s,%s"request":{"method":"%s","url":%s},"response":{"status":"%s","etag":%s,"lastModified":"%s"}}'
            % (
                string(url),
                body,
                method.encode(),
                string(target),
                _STATUS[version.interaction].encode(),
                string(etag(version)),
                instant_text(version.updated).encode(),
            )
        )
    head = b'{"resourceType":"Bundle","type":"history"'
    if total is not None:
        head += b',"total":%d' % total
    return _with_entries(head + _links(links), entries)


def responses(type: str, entries: Iterable[tuple[bytes, ...]]) -> list[bytes]:
    """The parts of a Bundle of ``type`` batch-response or transaction-response, whose entries are in parts too."""
    parts = [b'{"resourceType":"Bundle","type":"%s"' % type.encode()]
    before = b',"entry":['
    for entry in entries:
        parts += (before, *entry)
        before = b","
    parts.append(b"}" if len(parts) == 1 else b"]}")
    return parts


def _links(links: Sequence[tuple[str, str]]) -> bytes:
    items = (b'{"relation":%s,"url":%s}' % (string(relation), string(url)) for relation, url in links)
    return b',"link":[' + b",".join(items) + b"]"


def _with_entries(head: bytes, entries: Iterable[bytes]) -> bytes:
    """The text of a Bundle that begins with ``head``, joined at once: it may be large."""
    before, *others = (head + b',"entry":[', *entries)
    if not others:
        return head + b"}"
    others[0] = before + others[0]
    others[-1] += b"]}"
    return b",".join(others)
