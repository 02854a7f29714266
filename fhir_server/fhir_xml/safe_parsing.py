"""Expat as XML from outside needs it: UTF-8 only, without a document type, and so without entities."""

from __future__ import annotations

from typing import Any, Final
from xml.parsers import expat

from fhir_server.errors import Problem
from fhir_server.fhir_xml.values import quoted, refuse

_BOM: Final = b"\xef\xbb\xbf"


def new_parser() -> expat.XMLParserType:
    """A parser whose names have their namespace before them, after a blank.  The caller sets the other handlers."""
    parser = expat.ParserCreate("UTF-8", " ")
    parser.buffer_text = True
    parser.XmlDeclHandler = _declared
    parser.StartDoctypeDeclHandler = _document_type
    return parser


def without_mark(text: bytes) -> bytes:
    """The text without a byte order mark.  Raises Problem ``invalid`` for one that is not in UTF-8, as far as this can be seen."""
    if b"\0" in text:
        refuse("The body is not XML in UTF-8.", code="invalid")
    return text.removeprefix(_BOM)


def run(parser: expat.XMLParserType, text: bytes) -> None:
    """Parse the text.  Raises Problem ``invalid``, and what the handlers raise."""
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        message = f"The body is not well-formed XML: {expat.ErrorString(error.code)} at line {error.lineno} column {error.offset + 1}."
        raise Problem("invalid", message) from None


def _declared(version: str, encoding: str | None, standalone: int) -> None:
    if encoding is not None and encoding.lower() not in ("utf-8", "us-ascii"):
        refuse(f"The body declares the encoding {quoted(encoding)}; FHIR's is UTF-8.", code="invalid")


def _document_type(*_: Any) -> None:
    refuse("A document type (DTD), and so an entity, has no place in FHIR's XML.", code="invalid")
