"""The content of a Binary as it is, both ways (http://hl7.org/fhir/R4/binary.html#rest).

A read that does not name a FHIR media type gets the content, with the type that the Binary states.  So do ``*/*`` and no Accept header at
all: "unless specifically requested, the FHIR XML/JSON representation is not returned".  ``_format``, ``_summary``, ``_elements`` and
``_pretty`` are about the resource, which is then the answer.  In a Bundle, an entry is always the resource.

The content is what somebody sent.  A browser does not show it as a page of this server: it is an attachment, its type is not
guessed (``nosniff``), and ``sandbox`` denies it scripts and this origin.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from fhir_server import budget, jsontext
from fhir_server.access.view import View
from fhir_server.content_codings import COMPRESSED
from fhir_server.errors import Problem
from fhir_server.interactions import byte_ranges, write
from fhir_server.interactions import read as resource
from fhir_server.interactions.accept import ranges, require_acceptable
from fhir_server.interactions.messages import JSON_TYPES, XML_TYPES, AuditContext, Request, Response, media_type
from fhir_server.interactions.service import Service
from fhir_server.web.security_headers import NOT_A_PAGE

_FHIR: Final = ("application/fhir+json", "application/fhir+xml", "application/json+fhir", "application/xml+fhir")
_OF_RESOURCE: Final = frozenset({"_format", "_pretty", "_summary", "_elements"})
_TOKEN: Final = r"[A-Za-z0-9!#$&^_.+-]+"
_MEDIA_TYPE: Final = re.compile(rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*')
_UNKNOWN: Final = "application/octet-stream"
_LONGEST: Final = 1000  # characters of a header of the answer; proxies refuse an answer with longer ones
_CONTEXT: Final = "x-security-context"
_OWN_CONTEXT: Final = "X-Security-Context belongs to raw content; a Binary has its own securityContext."
# Nothing that was passed over is tried again: the body may be as large as a resource and consist of the beginnings of comments.
_XML_BINARY: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*\?>\s*+)?(?:(?><!--.*?-->)\s*+)*+<(?:[\w.-]+:)?Binary[\s/>]", re.DOTALL
)
_SLICE: Final = 64 * 1024  # of base64, a multiple of four


async def read(view: View, request: Request, service: Service) -> Response:
    """``GET Binary/id``: the content or a part of it, or the resource.

    Raises what the read of a resource raises, and Problem ``not_acceptable`` or ``range``.
    """
    return await _represented(request, await resource.read(view, request, service))


async def vread(view: View, request: Request, service: Service) -> Response:
    """``GET Binary/id/_history/number``, as :func:`read`."""
    return await _represented(request, await resource.vread(view, request, service))


async def _represented(request: Request, response: Response) -> Response:
    """The answer to a read of the resource, or the content in it if the request asks for that."""
    if response.status != 200:
        return response
    members = jsontext.members(response.body)
    content_type = _served_type(members.get("contentType", b""))
    if _asks_for_resource(request, media_type(content_type)):
        require_acceptable(request)
        return response
    headers = [header for header in response.headers if header[0] != b"content-type"]
    # Without a blank before its parameters no type looks like one that the server writes, which it may indent or translate.
    headers += [(b"content-type", content_type.encode()), (b"content-disposition", b"attachment"), (b"content-security-policy", NOT_A_PAGE)]
    if "securityContext" in members:
        context = jsontext.parse(members["securityContext"]).get("reference", "")
        can_be_sent = context.isascii() and context.isprintable() and len(context) <= _LONGEST
        headers += [(_CONTEXT.encode(), context.encode())] if can_be_sent else []
    text = _base64_text(members.get("data", b""))
    size = len(text) // 4 * 3 - text[-2:].count(b"=")
    if content_type.encode().startswith(COMPRESSED):
        # A part of what is compressed for some clients would be of the one form or the other.
        return Response(200, headers=(*headers, (b"accept-ranges", b"none")), parts=await _decoded(text, 0, size))
    headers.append((b"accept-ranges", b"bytes"))
    wanted = byte_ranges.wanted(request.method, request.headers, size)
    if wanted is None:
        return Response(200, headers=tuple(headers), parts=await _decoded(text, 0, size))
    headers.append((b"content-range", wanted.content_range(size)))
    return Response(206, headers=tuple(headers), parts=await _decoded(text, *wanted))


def _asks_for_resource(request: Request, content_type: str) -> bool:
    """Whether the resource is the answer and not the content, which is of this media type."""
    if any(name in _OF_RESOURCE for name, _ in request.query):
        return True
    weights: Mapping[str, float] = ranges(request.headers.get("accept", ""))
    weight = max([weights.get(name, 0.0) for name in _FHIR])
    return weight > 0 and (content_type in _FHIR or weight >= weights.get(content_type, 0.0))


def _served_type(text: bytes) -> str:
    """The media type for a ``contentType``; a code of R4 may also be text that is none, or that would end the header or fill it."""
    stated = jsontext.parse(text) if text else None
    if not isinstance(stated, str) or len(stated) > _LONGEST or not _MEDIA_TYPE.fullmatch(stated):
        return _UNKNOWN
    return re.sub(r"[ \t]*;[ \t]*", ";", stated)


def _base64_text(data: bytes) -> bytes:
    """The base64 in a JSON string, or in the JSON text of no value."""
    return (jsontext.parse(data).encode() if b"\\" in data else data[1:-1]).translate(None, b" \t\r\n")


async def _decoded(text: bytes, start: int, end: int) -> list[bytes]:
    """The bytes from ``start`` on and before ``end`` of those that a text of base64 stands for, in parts; no others are decoded."""
    first, last = start // 3, -(-end // 3)  # groups of three bytes, four characters each
    parts = []
    for group in range(first, last, _SLICE // 4):
        parts.append(b64decode(text[group * 4 : min(group + _SLICE // 4, last) * 4]))
        await budget.give_way()
    if parts:
        parts[-1] = parts[-1][: len(parts[-1]) - max(0, min(last * 3, len(text) // 4 * 3 - text[-2:].count(b"=")) - end)]
        parts[0] = parts[0][start - first * 3 :]
    return parts


async def create(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Binary``: a Binary in JSON or XML, or else the content of a new one."""
    return await write.create(await _as_resource(request, service, audit), service, audit)


async def update(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PUT Binary/id``: a Binary in JSON or XML, or else its new content."""
    return await write.update(await _as_resource(request, service, audit, request.path[1]), service, audit)


async def _as_resource(request: Request, service: Service, audit: AuditContext, id: str = "") -> Request:
    """The request with the Binary that it means.

    Raises Problem ``media_type`` without a media type, ``too_large`` for content that is too long as base64, ``invalid`` for a body that
    is declared as JSON and is none, and for a Binary in XML that is none of R4.
    """
    stated = request.headers.get("content-type", "").strip()
    if media_type(stated) in JSON_TYPES and _is_binary(request.body):
        if _CONTEXT in request.headers:
            raise Problem("invalid", _OWN_CONTEXT)
        return request
    if media_type(stated) in XML_TYPES and _XML_BINARY.match(request.body):
        audit.just_admitted = False
        body = await service.parser.from_xml(request.take_body())
        if _CONTEXT in request.headers:
            raise Problem("invalid", _OWN_CONTEXT)
        return msgspec.structs.replace(request, body=body, headers={**request.headers, "content-type": "application/fhir+json"})
    if len(stated) > _LONGEST or not _MEDIA_TYPE.fullmatch(stated):
        raise Problem("media_type", "The content of a Binary requires a Content-Type with a media type.")
    most = service.parser.max_bytes * 3 // 4
    if len(request.body) > most:
        raise Problem("too_large", f"The content is larger than {most} bytes, the limit for the content of a Binary.")
    audit.just_admitted = False  # others may go on meanwhile
    value: dict[str, Any] = {"resourceType": "Binary", "id": id, "contentType": re.sub(r"[ \t]*;[ \t]*", "; ", stated)}
    if (context := request.headers.get(_CONTEXT)) is not None:
        value["securityContext"] = {"reference": context.strip()}
    head = json.dumps({name: member for name, member in value.items() if member}).encode()
    parts = [head[:-1], b',"data":"', *[part async for part in _encoded(request.take_body())], b'"}']
    body = b"".join(parts) if len(parts) > 3 else head
    return msgspec.structs.replace(request, body=body, headers={**request.headers, "content-type": "application/fhir+json"})


class _Type(msgspec.Struct, rename={"type": "resourceType"}):
    type: object = None


def _is_binary(body: bytes) -> bool:
    """Whether a JSON text is a Binary.  Raises Problem ``invalid`` for other text."""
    try:
        value = msgspec.json.decode(body, type=_Type) if body.lstrip()[:1] == b"{" else msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("invalid", "The body is not JSON, as its Content-Type says.") from None
    return isinstance(value, _Type) and value.type == "Binary"


async def _encoded(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _SLICE * 3):
        yield b64encode(content[start : start + _SLICE * 3])
        await budget.give_way()
