"""Narrative XHTML (http://hl7.org/fhir/R4/narrative.html, invariants txt-1 and txt-2).

Narrative is well-formed XML whose root is ``div`` of the XHTML namespace, without active content: only the elements and
attributes that txt-1 lists, no processing instruction, no document type (so no entities), no script in a link.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final
from xml.etree import ElementTree

XHTML: Final = "{http://www.w3.org/1999/xhtml}"
XML: Final = "{http://www.w3.org/XML/1998/namespace}"

ELEMENTS: Final = frozenset(
    f"{XHTML}{name}"
    for name in (
        "a",
        "abbr",
        "acronym",
        "b",
        "big",
        "blockquote",
        "br",
        "caption",
        "cite",
        "code",
        "col",
        "colgroup",
        "dd",
        "dfn",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "li",
        "ol",
        "p",
        "pre",
        "q",
        "samp",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "tt",
        "ul",
        "var",
    )
)
ATTRIBUTES: Final = frozenset(
    (
        "abbr",
        "accesskey",
        "align",
        "alt",
        "axis",
        "bgcolor",
        "border",
        "cellhalign",
        "cellpadding",
        "cellspacing",
        "cellvalign",
        "char",
        "charoff",
        "charset",
        "cite",
        "class",
        "colspan",
        "compact",
        "coords",
        "dir",
        "frame",
        "headers",
        "height",
        "href",
        "hreflang",
        "hspace",
        "id",
        "lang",
        "longdesc",
        "name",
        "nowrap",
        "rel",
        "rev",
        "rowspan",
        "rules",
        "scope",
        "shape",
        "span",
        "src",
        "start",
        "style",
        "summary",
        "tabindex",
        "title",
        "type",
        "valign",
        "value",
        "vspace",
        "width",
        f"{XML}lang",
        f"{XML}id",
    )
)
LINKS: Final = ("href", "src", "longdesc", "cite")

_declaration = re.compile(r"<\?|<!(?!--)").search
# Browsers drop blanks before a scheme and around the media type of data:, and tabs and line ends wherever they are (URL Standard, 4.4).
_active = re.compile(r"[\x00-\x20]*(?:javascript|vbscript|data:(?! *image/))", re.IGNORECASE).match
_dropped = re.compile(r"[\t\n\r]").sub


@functools.lru_cache(maxsize=512)
def _is_valid(text: str) -> bool:
    if _declaration(text) or text.startswith("\ufeff"):  # a byte order mark has no place within XML
        return False
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return False
    nodes = list(root.iter())
    if root.tag != XHTML + "div" or not all(_is_harmless(node) for node in nodes):
        return False
    return any(text.strip() for text in root.itertext()) or any("src" in node.attrib for node in root.iter(XHTML + "img"))


def _is_harmless(node: ElementTree.Element) -> bool:
    return (
        node.tag in ELEMENTS
        and ATTRIBUTES.issuperset(node.attrib)
        and not any(_active(_dropped("", node.attrib[name])) for name in LINKS if name in node.attrib)
    )


def narrative(value: Any) -> bool:
    """Whether the value is a valid ``Narrative.div``."""
    if type(value) is not str:
        return False
    return _is_valid(value) if len(value) <= 2048 else _is_valid.__wrapped__(value)
