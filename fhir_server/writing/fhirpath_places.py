"""The places in a resource that a FHIRPath of a patch selects (http://hl7.org/fhir/R4/fhirpatch.html).

Taken are names, ``[n]``, ``first()``, ``last()``, ``where(name = literal and ...)``, ``ofType(Type)`` and ``extension('url')``.  Other
functions are refused: some of them, such as ``matches``, may run for ever, and ``resolve`` leaves the resource.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final, NamedTuple

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.resources.element_members import Member, members
from fhir_server.writing.json_document import Document

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\.)*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*|`[^`]+`)|(?P<sign>[.()\[\]=]))\s*"
)
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_MAX_LENGTH: Final = 2000


class Step(NamedTuple):
    """One step of a path: ``name``, ``index`` (-1: the last), ``type``, or ``where`` with (names, literal) pairs."""

    kind: str
    value: Any


class Place(NamedTuple):
    """A selected element: its path in the JSON text, and its datatype or the path of its definition."""

    path: Path
    kind: str


def parse(text: str, type: str) -> list[Step]:
    """The steps of a path on a resource of ``type``.  Raises Problem ``invalid`` for anything else than the subset."""
    if len(text) > _MAX_LENGTH:
        raise Problem("invalid", f"A path has at most {_MAX_LENGTH} characters.")
    steps = _Parser(text).steps()
    return steps[1:] if steps[0] == Step("name", type) else steps


def select(document: Document, type: str, steps: list[Step]) -> list[Place]:
    """The places that a path selects, in order."""
    found = [Place((), type)]
    for step in steps:
        match step.kind:
            case "name":
                found = [inner for place in found for inner in children(document, place, step.value)]
            case "index":
                found = found[step.value :][:1] if step.value >= 0 else found[-1:]
            case "type":
                found = [place for place in found if place.kind == step.value]
            case _:
                found = [place for place in found if all(_meets(document, place, *each) for each in step.value)]
    return found


def json_name(document: Document, place: Place, name: str) -> tuple[str, Member] | None:
    """The JSON name under which an element has its member ``name``, and what R4 says of it; None if it has none."""
    known = members(kind_at(document, place))
    for key in document.names(place.path):
        member = known.get(key.removeprefix("_"))
        if member is not None and member.name == name:
            return key.removeprefix("_"), member
    return None


def kind_at(document: Document, place: Place) -> str:
    """The kind of an element; of a resource within a resource, the type that it names."""
    if place.kind != "Resource":
        return place.kind
    named = jsontext.parse(document.get((*place.path, "resourceType"))) if "resourceType" in document.names(place.path) else ""
    return named if isinstance(named, str) else ""


def children(document: Document, place: Place, name: str) -> list[Place]:
    """The members ``name`` of an element: each item of an array is one."""
    found = json_name(document, place, name)
    if found is None:
        return []
    key, member = found
    path = (*place.path, key)
    if not document.has(path):  # a primitive with extensions alone
        return [Place(path, member.kind)]
    length = document.length_or_none(path)
    return [Place(path, member.kind)] if length is None else [Place((*path, number), member.kind) for number in range(length)]


def _meets(document: Document, place: Place, names: tuple[str, ...], literal: Any) -> bool:
    found = [place]
    for name in names:
        found = [inner for one in found for inner in children(document, one, name)]
    values = [jsontext.parse(document.get(one.path)) for one in found if document.has(one.path)]
    return len(values) == 1 and isinstance(values[0], bool) == isinstance(literal, bool) and bool(values[0] == literal)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._error()
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self._at = 0

    @staticmethod
    def _error() -> Problem:
        return Problem("invalid", "A path of a patch has only names, [n], first(), last(), where(name = literal), ofType(), extension().")

    def _take(self, kind: str, text: str | None = None) -> str | None:
        if self._at < len(self._tokens) and self._tokens[self._at][0] == kind and text in (None, self._tokens[self._at][1]):
            self._at += 1
            return self._tokens[self._at - 1][1]
        return None

    def _expect(self, kind: str, text: str | None = None) -> str:
        found = self._take(kind, text)
        if found is None:
            raise self._error()
        return found

    def steps(self) -> list[Step]:
        found = [Step("name", self._expect("name").strip("`"))]
        while self._at < len(self._tokens):
            if self._take("sign", "["):
                number = self._expect("number")
                if not number.isdigit() or len(number) > 9:
                    raise self._error()
                found.append(Step("index", int(number)))
                self._expect("sign", "]")
            else:
                self._expect("sign", ".")
                found += self._named(self._expect("name"))
        return found

    def _named(self, name: str) -> list[Step]:
        if not self._take("sign", "("):
            return [Step("name", name.strip("`"))]
        match name:
            case "first" | "last":
                steps = [Step("index", 0 if name == "first" else -1)]
            case "ofType":
                parts = self._names()
                steps = [Step("type", parts[-1])]
            case "extension":
                steps = [Step("name", "extension"), Step("where", [(("url",), _text(self._expect("string")))])]
            case "where":
                steps = [Step("where", self._criteria())]
            case _:
                raise self._error()
        self._expect("sign", ")")
        return steps

    def _names(self) -> tuple[str, ...]:
        names = [self._expect("name").strip("`")]
        while self._take("sign", "."):
            names.append(self._expect("name").strip("`"))
        return tuple(names)

    def _criteria(self) -> list[tuple[tuple[str, ...], Any]]:
        found = []
        while True:
            names = self._names()
            self._expect("sign", "=")
            found.append((names, self._literal()))
            if not self._take("name", "and"):
                return found

    def _literal(self) -> Any:
        if (text := self._take("string")) is not None:
            return _text(text)
        if (number := self._take("number")) is not None:
            return Decimal(number) if "." in number else int(number)
        if (word := self._take("name")) in ("true", "false"):
            return word == "true"
        raise self._error()


def _text(literal: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), literal[1:-1])
