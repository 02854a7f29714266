"""JSON and XML at the edge of the API: bodies that come in XML, and answers that go out in it (http://hl7.org/fhir/R4/xml.html).

Handlers know JSON only.  An answer is the same in both formats: its status, its headers and its ETag, too.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server import budget
from fhir_server.errors import Problem
from fhir_server.interactions.accept import default_of
from fhir_server.interactions.messages import JSON, XML, XML_TYPES, Request, Response, media_type
from fhir_server.writing.parser import LARGEST_CONVERTED, Parser

_LARGEST_INDENTED: Final = 1024 * 1024
_MOST_DOCUMENTS: Final = 8


def is_xml(request: Request) -> bool:
    """Whether the body is declared as FHIR's XML."""
    return media_type(request.headers.get("content-type", "")) in XML_TYPES


class Formats:
    """Converts bodies and answers."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._documents: dict[tuple[bytes, bool], Response] = {}

    async def take_xml(self, request: Request) -> bool:
        """Make the request one with a JSON body, to which the answer is in XML all the same.  Returns whether nothing was waited for.

        Raises Problem ``media_type`` for another encoding than UTF-8, ``invalid`` for XML that is no resource.
        """
        declared = request.headers["content-type"]
        if "charset=" in declared.lower() and "utf-8" not in declared.lower():
            raise Problem("media_type", "FHIR's XML is in UTF-8.")
        size, text = len(request.body), request.take_body()
        spending = budget.current()
        if size > LARGEST_CONVERTED and spending is not None:
            spending.take_for_body(size)
        request.body = await self._parser.from_xml(text)
        accepted = request.headers.get("accept") or default_of(declared)
        request.headers = {**request.headers, "content-type": "application/fhir+json", "accept": accepted}
        return size <= LARGEST_CONVERTED

    async def answer(self, request: Request, response: Response, media: bytes) -> Response:
        """The response in XML if ``media`` is, and as ``_pretty`` asks for (http://hl7.org/fhir/R4/http.html#pretty).

        Streams, and what is no FHIR JSON, stay as they are; large ones without line breaks.
        """
        size = len(response.body) + sum(map(len, response.parts))
        if response.stream or not size or (b"content-type", JSON) not in response.headers:
            return response
        pretty = size <= _LARGEST_INDENTED and ("_pretty", "true") in request.query
        if media != XML and not pretty:
            return response
        text = b"".join((response.body, *response.parts)) if response.parts else response.body
        if media != XML:
            return msgspec.structs.replace(response, body=msgspec.json.format(text, indent=2), parts=[])
        response.parts.clear()
        if size > LARGEST_CONVERTED and (spending := budget.current()) is not None:
            spending.take(0, size)
        headers = tuple((name, XML if name == b"content-type" else value) for name, value in response.headers)
        return msgspec.structs.replace(response, body=await self._parser.to_xml(text, pretty=pretty), headers=headers, parts=[])

    async def document(self, request: Request, response: Response, media: bytes) -> Response:
        """As :meth:`answer`, for documents that anyone may ask for: each is converted once."""
        if media != XML:
            return await self.answer(request, response, media)
        key = (response.body, ("_pretty", "true") in request.query)
        if key not in self._documents:
            if len(self._documents) >= _MOST_DOCUMENTS:
                self._documents.clear()
            self._documents[key] = await self.answer(request, response, media)
        return msgspec.structs.replace(self._documents[key])
