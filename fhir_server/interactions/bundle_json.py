"""Bundles put together from texts: entries are spliced in, never parsed and written again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from fhir_server.access.view import VisibleVersion
from fhir_server.clock import instant_text
from fhir_server.interactions.messages import format_query

_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_MODES = {mode: b',"search":{"mode":"%s"}}' % mode.encode() for mode in ("match", "include", "outcome")}
_STATUS = {"create": "201 Created", "update": "200 OK", "delete": "204 No Content"}


def address(base: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The address of a search or operation, its parameters encoded."""
    query = format_query(pairs)
    return f"{base}/{path}?{query}" if query else f"{base}/{path}"


def text(value: str) -> bytes:
    """A JSON string."""
    return json.dumps(value, ensure_ascii=False).encode()


def searchset(matches: Iterable[bytes], *, links: Sequence[tuple[str, str]], total: int | None = None) -> bytes:
    """A searchset Bundle of ready entries (http://hl7.org/fhir/R4/bundle.html#searchset)."""
    head = b'{"resourceType":"Bundle","type":"searchset"'
    if total is not None:
        head += b',"total":%d' % total
    return head + _links(links) + _entries(matches)


def entry(seen: VisibleVersion, base: str, mode: str = "match", body: bytes | None = None) -> bytes:
    """An entry of a searchset: ``body``, if given, stands for the whole resource."""
    url = f'{{"fullUrl":"{base}/{seen.type}/{seen.id}","resource":'
    return b"".join((url.encode(), seen.body if body is None else body, _MODES[mode]))


def history(versions: Sequence[VisibleVersion], base: str, path: str) -> bytes:
    """A history Bundle, newest version first (http://hl7.org/fhir/R4/http.html#history)."""
    entries = []
    for seen in reversed(versions):
        url = f"{base}/{seen.type}/{seen.id}"
        body = b"" if seen.interaction == "delete" else b'"resource":' + seen.body + b","
        verb = _METHODS[seen.interaction]
        target = seen.type if verb == "POST" else f"{seen.type}/{seen.id}"
        entries.append(
            b'{"fullUrl":%s,%s"request":{"method":"%s","url":%s},"response":{"status":"%s","etag":"W/\\"%d\\"","lastModified":"%s"}}'
            % (
                text(url),
                body,
                verb.encode(),
                text(target),
                _STATUS[seen.interaction].encode(),
                seen.version,
                instant_text(seen.updated).encode(),
            )
        )
    head = b'{"resourceType":"Bundle","type":"history","total":%d' % len(versions)
    return head + _links([("self", f"{base}/{path}")]) + _entries(entries)


def responses(kind: str, entries: Iterable[bytes]) -> bytes:
    """A ``batch-response`` or ``transaction-response`` of ready entries."""
    return b'{"resourceType":"Bundle","type":"%s"' % kind.encode() + _entries(entries)


def _links(links: Sequence[tuple[str, str]]) -> bytes:
    items = (b'{"relation":%s,"url":%s}' % (text(relation), text(url)) for relation, url in links)
    return b',"link":[' + b",".join(items) + b"]"


def _entries(entries: Iterable[bytes]) -> bytes:
    joined = b",".join(entries)
    return (b',"entry":[' + joined + b"]}") if joined else b"}"
