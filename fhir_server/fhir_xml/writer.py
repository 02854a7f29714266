"""The XML of a resource from its JSON (http://hl7.org/fhir/R4/xml.html, json.html): elements in the order of R4's definitions.

Digits, dates and narrative stay as they are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fhir_server.fhir_xml.members import FHIR, Member, members


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
_UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"  # for what XML has no way to write
_special = re.compile('[\x00-\x1f&<>"\ufffe\uffff]').search
_ESCAPES: Final = str.maketrans(
    {chr(code): _UNREADABLE for code in (*range(0x20), 0xFFFE, 0xFFFF)}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)
_negative_zero = re.compile(rb"[:\[,]\s*-0\s*[,}\]]").search
_decoder = msgspec.json.Decoder(float_hook=_Number)
_slow_decoder = json.JSONDecoder(parse_float=_Number, parse_int=_Number)


def to_xml(text: bytes, *, pretty: bool = False) -> bytes:
    """The XML text of a valid resource, which ``text`` is in JSON.  ``pretty``: with line breaks and indents.

    Raises ValueError for a resource with members that R4 does not define.
    """
    writer = _Writer(pretty)
    value = _slow_decoder.decode(text.decode()) if _negative_zero(text) else _decoder.decode(text)
    writer.resource(value, "\n" if pretty else "", f' xmlns="{FHIR}"')
    return "".join(writer.out).encode()


class _Writer:
    def __init__(self, pretty: bool) -> None:
        self.out: list[str] = [_DECLARATION]
        self._step = "  " if pretty else ""

    def resource(self, value: Mapping[str, Any], indent: str, namespace: str = "") -> None:
        name = value["resourceType"]
        self._node(value, members(name), f"{indent}<{name}{namespace}", name, indent)

    def _node(self, node: Mapping[str, Any], table: Mapping[str, Member], head: str, name: str, indent: str, value: Any = None) -> None:
        """An element: ``head`` is its start without attributes and the closing bracket, ``value`` that of a primitive."""
        inner: list[Member] = []
        start = head if value is None else f'{head} value="{_text(value)}"'
        for key in {key.removeprefix("_"): None for key in node}:
            if (member := table.get(key)) is None:
                if key == "resourceType":  # the name of the element; an ExampleScenario has an element of this name, too
                    continue
                raise ValueError(f"R4 does not define {key!r} in <{name}>.")
            if member.kind == "attribute":
                start += f' {key}="{_text(node[key])}"'
            else:
                inner.append(member)
        if not inner:
            self.out.append(start + "/>")
            return
        self.out.append(start + ">")
        inner.sort(key=lambda member: member.order)
        deeper = indent + self._step
        for member in inner:
            self._member(member, node.get(member.name), node.get("_" + member.name), deeper)
        self.out.append(f"{indent}</{name}>")

    def _member(self, member: Member, value: Any, sibling: Any, indent: str) -> None:
        if member.many:
            values, siblings = value or (), sibling or ()
            for place in range(max(len(values), len(siblings))):
                self._element(member, _item(values, place), _item(siblings, place), indent)
        else:
            self._element(member, value, sibling, indent)

    def _element(self, member: Member, value: Any, sibling: Any, indent: str) -> None:
        name = member.name
        match member.kind:
            case "primitive":
                if sibling:
                    self._node(sibling, members("Element"), f"{indent}<{name}", name, indent, value)
                elif value is not None:
                    self.out.append(f'{indent}<{name} value="{_text(value)}"/>')
            case "xhtml":
                self.out.append(indent + value)
            case "resource":
                self.out.append(f"{indent}<{name}>")
                self.resource(value, indent + self._step)
                self.out.append(f"{indent}</{name}>")
            case _:
                self._node(value, members(member.type), f"{indent}<{name}", name, indent)


def _item(items: Any, place: int) -> Any:
    return items[place] if place < len(items) else None


def _text(value: Any) -> str:
    """A value of JSON as the text of an attribute."""
    if value is True or value is False:
        return "true" if value else "false"
    text = str(value)
    return text.translate(_ESCAPES) if _special(text) else text
