"""Gives every URL of this server in a received resource its one spelling, and reports what cannot have one.

A reference to this server becomes relative. In a stored Bundle it stays absolute, because a relative reference there is read against
the fullUrl of its entry (http://hl7.org/fhir/R4/bundle.html#references). Elements of type url and uri, such as Attachment.url, keep
the base. Without this, a URL in another spelling would lead to a row whose labels nobody had taken into account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from fhir_server import jsontext
from fhir_server.errors import Issue
from fhir_server.resources import definitions
from fhir_server.resources.references import parse_reference, url_target
from fhir_server.resources.server_base import ServerBase, server_base
from fhir_server.resources.uri_elements import UriValue, uri_values
from fhir_server.writing.references import found_references, replace_references

_URL_STRING: Final = re.compile(rb'"([hH][tT][tT][pP][sS]?:(?:[^"\\]|\\.)*)"')
# For lower-case text, with literal beginnings: each received resource is scanned with them.
_AUTHORITY: Final = re.compile(rb'"https?:/*([^/"\\?#]*)')
_RELATIVE_URL: Final = re.compile(rb'ur[il]"\s*:\s*"(?!https?:|urn:|data:)[^"]*[/%\\]')
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


class Doubts(NamedTuple):
    """What a quick look at a JSON text cannot exclude: URLs of this server, and relative URLs in another form than ``Type/id``."""

    own: bool
    relative: bool


def doubts(text: bytes, base: str) -> Doubts:
    """Look quickly at a JSON text; most have neither, and are not examined further."""
    scanned = _unescaped(text).lower()
    server = server_base(base)
    return Doubts(server.may_have_authority(_AUTHORITY.findall(scanned)), _RELATIVE_URL.search(scanned) is not None)


def normalize(text: bytes, value: Any, base: str) -> bytes:
    """The JSON text, whose value is ``value``, with the URLs of this server in their one spelling; ``base`` is the FHIR base URL."""
    scanned = _unescaped(text)
    server = server_base(base)
    odd = {url for raw in set(_URL_STRING.findall(scanned)) if _is_odd(url := _decoded(raw), server)}
    keeps_base = isinstance(value, dict) and value.get("resourceType") == "Bundle"
    if odd:
        text = replace_references(text, lambda link: _reference(link, server, keeps_base) if link in odd else None)
        text = jsontext.replace_values(text, _respelled(value, odd, server))
    if not keeps_base and base and f'"{base}/'.encode() in text:
        text = replace_references(text, lambda link: _reference(link, server, False) if link.startswith(base) else None)
    return text


def issues(value: Mapping[str, Any], doubts: Doubts, base: str) -> list[Issue]:
    """One issue for each reference and relative URL that leads to this server, but is not written so that R4 can read it."""
    name = str(value.get("resourceType"))
    found: list[Issue] = []
    server = server_base(base)
    for reference in found_references(value, name) if doubts.own else ():
        relative = server.relative(reference.text)
        if relative is not None and parse_reference(relative) is None:
            found.append(Issue("value", "This URL leads to this server, but not to a resource.", (reference.place,)))
    for one in uri_values(value) if doubts.relative else ():
        if _is_followed(one) and _is_odd_relative(one.text):
            found.append(Issue("value", "A relative URL of a resource is written Type/id.", (_expression(name, one.path),)))
    return found


def _unescaped(text: bytes) -> bytes:
    return jsontext.unescape(text) if b"\\" in text and (b"\\u" in text or b"\\/" in text) else text


def _decoded(raw: bytes) -> str:
    text: str = json.loads(b'"%s"' % raw) if b"\\" in raw else raw.decode()
    return text


def _is_odd(url: str, server: ServerBase) -> bool:
    """Whether a URL leads to this server and does not consist of the base and what follows it."""
    relative = server.relative(url)
    return relative is not None and url != f"{server.base}/{relative}" and url != server.base


def _reference(link: str, server: ServerBase, keeps_base: bool) -> str | None:
    relative = server.relative(link)
    if relative is None or parse_reference(relative) is None:
        return None
    return f"{server.base}/{relative}" if keeps_base else relative


def _respelled(value: Any, odd: Iterable[str], server: ServerBase) -> dict[jsontext.Path, bytes]:
    urls = set(odd)
    found = (one for one in uri_values(value) if one.text in urls) if isinstance(value, dict) else ()
    return {one.path: json.dumps(f"{server.base}/{(server.relative(one.text) or '').lstrip('/')}").encode() for one in found}


def _is_followed(found: UriValue) -> bool:
    """Whether an app may take the value for the address of a resource: those of type uri are names, but for ``valueUri``."""
    return found.datatype == "url" or found.path[-1] == "valueUri"


def _is_odd_relative(text: str) -> bool:
    """Whether a relative URL can be taken for that of a resource, and is not ``Type/id``."""
    if _SCHEME.match(text) or url_target(text) is not None:
        return False
    path = re.split(r"[?#]", unquote(text).replace("\\", "/"), maxsplit=1)[0]
    segments = [segment for segment in path.split("/") if segment not in ("", ".", "..")]
    if len(segments) > 3 and segments[-2] == "_history":
        segments = segments[:-2]
    types = definitions.types()
    return len(segments) > 1 and (segments[-2] in types or (len(segments) == 2 and segments[0].lower() in {type.lower() for type in types}))


def _expression(name: str, path: jsontext.Path) -> str:
    return name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
