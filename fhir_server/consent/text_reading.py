"""Reads free text: strings, narrative, and the text of attachments.

Text that cannot be read (another format, a broken encoding, the part beyond the limit) counts as unread, and whoever labels a
resource treats unread text as unclassified.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from html import unescape
from typing import Any, Final

from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.word_search import MAX_SEARCHED_TEXT, WordReading

# Attributes of narrative that say something; others hold identifiers and styles.
_SPEAKING: Final = re.compile(r"""\b(?:alt|title|href|src|summary|name)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_TAG: Final = re.compile(r"<(?:/|([!?]))?+([a-zA-Z0-9]*+)([^<>]*+)>")
# Elements that stand within a word, such as <b>H</b>IV; any other one separates words.
_INLINE: Final = frozenset({"a", "abbr", "b", "big", "em", "font", "i", "small", "span", "strong", "sub", "sup", "tt", "u"})
_PLAIN: Final = frozenset({"text/plain", "text/markdown", "text/csv", "application/json", "application/fhir+json"})
_MARKUP: Final = frozenset({"text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/hl7-sda+xml",
                            "application/fhir+xml"})  # fmt: skip
_MAX_DATA: Final = 4 * MAX_SEARCHED_TEXT  # bytes of a text in UTF-8
_UNREAD: Final = WordReading(complete=False)


def read_text(codes: SensitivityCodes, text: str) -> WordReading:
    """Read a string or markdown: at most 100,000 characters."""
    return codes.read_text(text)


def read_html(codes: SensitivityCodes, html: str) -> WordReading:
    """Read narrative or another markup: its text, and the attributes that people see or follow."""
    if len(html) > _MAX_DATA:
        return _merge(codes.read_text(_visible(html[:_MAX_DATA])), _UNREAD)
    return codes.read_text(_visible(html))


def read_attachment(codes: SensitivityCodes, attachment: Mapping[str, Any]) -> WordReading:
    """Read an Attachment: its title, and its data if they are text.

    Unread are data of any other type or without a type, data that are not base64, text that is not UTF-8, and what only a URL names.
    """
    title = attachment.get("title")
    reading = codes.read_text(title) if isinstance(title, str) else WordReading()
    data = attachment.get("data")
    if not isinstance(data, str):
        return _merge(reading, _UNREAD) if "url" in attachment else reading
    kind, _, parameters = str(attachment.get("contentType", "")).lower().partition(";")
    kind = kind.strip()
    if kind not in _PLAIN | _MARKUP:
        return _merge(reading, _UNREAD)
    text = _decoded(data, parameters)
    if text is None:
        return _merge(reading, _UNREAD)
    return _merge(reading, read_html(codes, text) if kind in _MARKUP else read_text(codes, text))


def _decoded(data: str, parameters: str) -> str | None:
    """The text of base64 data; None if it is no text.  A part of the data is enough to know that the rest is unread."""
    charset = parameters.partition("charset=")[2].strip("\"' ") or "utf-8"
    try:
        octets = base64.b64decode(re.sub(r"\s+", "", data[: 2 * _MAX_DATA]), validate=True)
        return octets.decode({"us-ascii": "ascii", "iso-8859-1": "cp1252", "windows-1252": "cp1252"}.get(charset, charset))
    except (binascii.Error, UnicodeDecodeError, LookupError, ValueError):
        return None


def _visible(html: str) -> str:
    """The text of a markup and the values of speaking attributes, in order."""
    return unescape(_TAG.sub(_replaced, html))


def _replaced(tag: re.Match[str]) -> str:
    if tag[1]:  # a comment
        return f" {tag[3]} "
    attributes = " ".join(one or other for one, other in _SPEAKING.findall(tag[3])) if "=" in tag[3] else ""
    if attributes:
        return f" {attributes} "
    return "" if tag[2].lower() in _INLINE else " "


def _merge(first: WordReading, second: WordReading) -> WordReading:
    labels = first.labels | second.labels
    return WordReading(labels, (first.possible | second.possible) - labels, first.complete and second.complete)
