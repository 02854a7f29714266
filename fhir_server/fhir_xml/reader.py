"""The JSON of a resource from its XML (http://hl7.org/fhir/R4/xml.html, json.html).

Expat reads it: without a document type, so without entities, and in UTF-8 only.  Comments and processing instructions are dropped.
Elements, attributes, text and order that R4 does not define are refused, with their place.  Whether the values are valid is not
decided here: the JSON is checked as any JSON is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fhir_server import jsontext
from fhir_server.fhir_xml.members import FHIR, XHTML, Member, members
from fhir_server.fhir_xml.narrative import standing_alone
from fhir_server.fhir_xml.safe_parsing import new_parser, run, without_mark
from fhir_server.fhir_xml.values import json_value, quoted, refuse, string
from fhir_server.resources import definitions

_SCHEMA: Final = "http://www.w3.org/2001/XMLSchema-instance"
_BLANK: Final = " \t\r\n"
_MOST_PREFIXES: Final = 100  # each narrative may be read with those that are declared around it
_end_tag = re.compile(rb"</(?:[^\s>]+:)?div\s*>").match


def to_json(text: bytes, *, ordered: bool = True) -> bytes:
    """The JSON text of the resource that ``text`` is in XML.  ``ordered``: its elements must be in R4's order.

    Raises Problem ``invalid``, with the place, for a text that is not well-formed XML, has a document type or another encoding than
    UTF-8, or is not a resource by R4's rules for XML.
    """
    reader = _Reader(without_mark(text), ordered)
    reader.parse()
    return reader.result


class _Frame:
    """An element that is being read: ``member`` of its parent, with the members ``table``; ``name`` is that of a resource's type."""

    __slots__ = ("count", "holds", "last", "member", "name", "siblings", "table", "value", "values")

    def __init__(self, member: Member | None, table: Mapping[str, Member], name: str = "", *, holds: bool = False) -> None:
        self.member, self.table, self.name, self.holds = member, table, name, holds
        self.last = -1
        self.value: bytes | None = None
        self.values: dict[str, list[bytes]] = {}
        self.siblings: dict[str, list[bytes]] = {}


class _Reader:
    def __init__(self, text: bytes, ordered: bool) -> None:
        self.result = b""
        self._text, self._ordered = text, ordered
        self._frames: list[_Frame] = []
        self._narrative = 0  # how deep the present element is in a narrative
        self._began = 0
        self._namespaces: dict[str, list[str]] = {}
        parser = self._parser = new_parser()
        parser.StartNamespaceDeclHandler = self._namespace
        parser.EndNamespaceDeclHandler = self._namespace_ended
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def parse(self) -> None:
        run(self._parser, self._text)

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        self._namespaces.setdefault(prefix or "", []).append(uri or "")
        if len(self._namespaces) > _MOST_PREFIXES:
            refuse(f"The body declares more than {_MOST_PREFIXES} prefixes.", self._place())

    def _namespace_ended(self, prefix: str | None) -> None:
        self._namespaces[prefix or ""].pop()

    def _characters(self, text: str) -> None:
        if not self._narrative and text.strip(_BLANK):
            refuse(f"Text is not allowed here; a value is in the attribute value: {quoted(text.strip())}.", self._place())

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._narrative:
            self._narrative += 1
            if self._narrative > jsontext.MAX_DEPTH:
                refuse(f"The narrative nests elements deeper than {jsontext.MAX_DEPTH} levels.", self._place())
            return
        if len(self._frames) >= jsontext.MAX_DEPTH:
            refuse(f"The body nests elements deeper than {jsontext.MAX_DEPTH} levels.")
        namespace, _, local = name.rpartition(" ")
        parent = self._frames[-1] if self._frames else None
        if parent is None or parent.holds:
            self._start_resource(parent, namespace, local, attributes)
            return
        member = parent.table.get(local)
        if member is None or member.kind == "attribute" or namespace != (XHTML if member.kind == "xhtml" else FHIR):
            kind = f"of the namespace {quoted(namespace)} " if namespace != FHIR else ""
            refuse(f"The element {quoted(local)} {kind}is not defined here.", self._place())
        if self._ordered and member.order < parent.last:
            refuse(f"The element {local!r} comes too late here: elements have the order of R4's definitions.", self._place())
        parent.last = member.order
        if not member.many and (local in parent.values or local in parent.siblings):
            refuse(f"The element {local!r} may occur once only.", self._place())
        if member.kind == "xhtml":
            self._narrative, self._began = 1, self._parser.CurrentByteIndex
            parent.values[local] = []
            return
        self._frames.append(_frame(member))
        self._attributes(self._frames[-1], attributes)

    def _start_resource(self, holder: _Frame | None, namespace: str, name: str, attributes: dict[str, str]) -> None:
        if namespace != FHIR or name not in definitions.types():
            refuse(f"Expected a resource of R4 in the namespace {FHIR}, not {quoted(name)} of {quoted(namespace)}.", self._place())
        if holder is not None and holder.value is not None:
            refuse("There may be one resource only here.", self._place())
        for attribute in attributes:
            if attribute.rpartition(" ")[0] != _SCHEMA:  # where a schema is to be found, which nothing asks for
                refuse(f"A resource has no attribute {quoted(attribute)}.", self._place() or name)
        self._frames.append(_Frame(None, members(name), name))

    def _attributes(self, frame: _Frame, attributes: dict[str, str]) -> None:
        member = frame.member
        assert member is not None
        for name, text in attributes.items():
            if not text:
                refuse(f"The attribute {quoted(name)} is empty.", self._place())
            if name == "value" and member.kind == "primitive":
                frame.value = json_value(member.type, text)
                if frame.value is None:
                    refuse(f"{quoted(text)} is not a {member.type}.", self._place(), "value")
            elif (known := frame.table.get(name)) is not None and known.kind == "attribute":
                frame.values[name] = [string(text)]
            else:
                refuse(f"The attribute {quoted(name)} is not defined here.", self._place())

    def _end(self, _: str) -> None:
        if self._narrative:
            self._narrative -= 1
            if not self._narrative:
                self._end_narrative()
            return
        frame = self._frames.pop()
        if frame.member is None:
            self._end_resource(frame)
            return
        parent, member = self._frames[-1], frame.member
        inner = self._joined(frame)
        has_no_value = frame.value is None
        if has_no_value and not inner:
            self._frames.append(frame)
            refuse("An element may not be empty.", self._place())
        if member.kind == "primitive":
            parent.values.setdefault(member.name, []).append(frame.value or b"null")
            parent.siblings.setdefault(member.name, []).append(b"{%s}" % inner if inner else b"null")
        else:
            parent.values.setdefault(member.name, []).append(frame.value if member.kind == "resource" else b"{%s}" % inner)  # type: ignore[arg-type]

    def _end_resource(self, frame: _Frame) -> None:
        inner = self._joined(frame)
        text = b'{"resourceType":"%s"%s%s}' % (frame.name.encode(), b"," if inner else b"", inner)
        if self._frames:
            self._frames[-1].value = text
        else:
            self.result = text

    def _end_narrative(self) -> None:
        end = self._parser.CurrentByteIndex
        if not _end_tag(self._text, end):
            refuse("A narrative may not be empty.", self._place())
        text = self._text[self._began : self._text.index(b">", end) + 1].decode()
        around = [prefix for prefix, uris in self._namespaces.items() if uris[-1:] == [XHTML]]
        self._frames[-1].values["div"] = [string(standing_alone(text, around))]

    def _joined(self, frame: _Frame) -> bytes:
        """The members of an element, as the inside of a JSON object."""
        names = list(frame.values)
        if not self._ordered:
            names.sort(key=lambda name: frame.table[name].order)
        parts: list[bytes] = []
        for name in names:
            for prefix, texts in ((b"", frame.values[name]), (b"_", frame.siblings.get(name, []))):
                if any(text != b"null" for text in texts):
                    value = b"[" + b",".join(texts) + b"]" if frame.table[name].many else texts[0]
                    parts.append(b'"%s%s":%s' % (prefix, name.encode(), value))
        return b",".join(parts)

    def _place(self) -> str:
        """The present place, as FHIRPath."""
        steps: list[str] = []
        for number, frame in enumerate(self._frames):
            if frame.member is None:
                steps += [] if steps else [frame.name]
            elif frame.member.many:
                before = self._frames[number - 1].values.get(frame.member.name, ())
                steps.append(f"{frame.member.name}[{len(before)}]")
            else:
                steps.append(frame.member.name)
        return ".".join(steps)


def _frame(member: Member) -> _Frame:
    if member.kind == "resource":
        return _Frame(member, {}, holds=True)
    return _Frame(member, members("Element" if member.kind == "primitive" else member.type))
