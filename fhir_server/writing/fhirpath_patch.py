"""FHIRPath Patch (http://hl7.org/fhir/R4/fhirpatch.html): a Parameters resource of operations on places in a resource.

Values are put in as they are written in the Parameters: ``1.50`` stays ``1.50``.  Deleting what is not there is no error, as R5 says and
R4's example has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.resources.element_members import Member, members
from fhir_server.writing import fhirpath_places
from fhir_server.writing.fhirpath_places import Place, Step
from fhir_server.writing.json_document import Document, PlaceError

MAX_OPERATIONS: Final = 200
_NEEDED: Final = {
    "add": ("name", "value"),
    "insert": ("value", "index"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}
_NUMBERS: Final = ("index", "source", "destination")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its type, the steps of its path, its other parts by name, and the members of the part ``value`` as JSON texts."""

    type: str
    steps: list[Step]
    parts: dict[str, Any]
    value: dict[str, bytes]


def parse(text: bytes, type: str) -> list[Operation]:
    """The operations of a valid Parameters resource on a resource of ``type``.  Raises Problem ``invalid``."""
    value, text = jsontext.parse_compact(text)
    if not isinstance(value, dict) or value.get("resourceType") != "Parameters":
        raise Problem("invalid", "A FHIRPath Patch is a Parameters resource of operations.")
    parameters = jsontext.items(jsontext.members(text).get("parameter", b"[]"))
    if len(parameters) > MAX_OPERATIONS:
        raise Problem("invalid", f"A FHIRPath Patch has at most {MAX_OPERATIONS} operations.")
    return [_operation(number, each, type) for number, each in enumerate(parameters)]


def _operation(number: int, text: bytes, type: str) -> Operation:
    parameter = jsontext.members(text)
    texts = [jsontext.members(part) for part in jsontext.items(parameter.get("part", b"[]"))]
    if jsontext.parse(parameter["name"]) != "operation" or not texts:
        raise Problem("invalid", f"Parameter {number}: each parameter of a FHIRPath Patch is an operation with parts.")
    parts: dict[str, Any] = {}
    value: dict[str, bytes] = {}
    for part in texts:
        name = jsontext.parse(part["name"])
        if name in parts:
            raise Problem("invalid", f"Operation {number} has two parts {name!r}.")
        if name == "value":
            value = part
        parts[name] = next((jsontext.parse(part[key]) for key in part if key.startswith("value")), None)
    kind = parts.get("type")
    if not isinstance(kind, str) or kind not in _NEEDED:
        raise Problem("invalid", f"Operation {number}: type is one of {', '.join(_NEEDED)}.")
    for name in ("path", *_NEEDED[kind]):
        if name not in parts or (name != "value" and not isinstance(parts[name], int if name in _NUMBERS else str)):
            raise Problem("invalid", f"Operation {number}: {kind} needs {name}.")
    return Operation(kind, fhirpath_places.parse(parts["path"], type), parts, value)


def apply(operations: list[Operation], text: bytes, type: str, limit: int) -> bytes:
    """The text of a resource of ``type`` after all operations.

    Raises Problem ``unprocessable``, which names the operation, if one cannot be done; ``too_large``.
    """
    document, spending = Document(text, limit), budget.current()
    for number, operation in enumerate(operations):
        if spending is not None:
            spending.remaining()
        try:
            _apply(document, type, operation)
        except PlaceError as error:
            raise Problem("unprocessable", f"Operation {number} ({operation.type}): {error}") from None
    return document.text()


def _apply(document: Document, type: str, operation: Operation) -> None:
    match operation.type:
        case "add":
            place = _one(fhirpath_places.select(document, type, operation.steps))
            _add(document, place, str(operation.parts["name"]), operation.value)
        case "delete":
            found = fhirpath_places.select(document, type, operation.steps)
            if found:
                _delete(document, _one(found).path)
        case "replace":
            _replace(document, type, operation)
        case "insert":
            path, member = _collection(document, type, operation.steps)
            _insert(document, path, operation.parts["index"], _value(operation.value, member.kind))
        case _:
            path, _ = _collection(document, type, operation.steps)
            _move(document, path, operation.parts["source"], operation.parts["destination"])


def _one(found: list[Place]) -> Place:
    if len(found) != 1:
        raise PlaceError("The path leads to several elements." if found else "The path leads to no element.")
    return found[0]


def _add(document: Document, place: Place, name: str, value: dict[str, bytes]) -> None:
    key, member = _member(fhirpath_places.kind_at(document, place), name, value)
    path = (*place.path, key)
    if member.repeats:
        _insert(document, path, document.length_or_none(path) or 0, _value(value, member.kind))
    elif fhirpath_places.json_name(document, place, name) is not None:
        raise PlaceError("The element is there already.")
    else:
        document.add(path, _value(value, member.kind))


def _member(kind: str, name: str, value: dict[str, bytes]) -> tuple[str, Member]:
    """The JSON name of the member ``name``, for a value of this datatype."""
    known = members(kind)
    if name in known and known[name].name == name:
        return name, known[name]
    datatype = next((key.removeprefix("value") for key in value if key.startswith("value")), "")
    if (member := known.get(name + datatype)) is None or member.name != name:
        raise PlaceError("R4 has no such element here, or not with a value of this type.")
    return name + datatype, member


def _delete(document: Document, path: Path) -> None:
    """Remove an element and, of a primitive, its extensions."""
    if document.has(path):
        document.remove(path)
    if path:
        _change_extensions(document, path, None)


def _replace(document: Document, type: str, operation: Operation) -> None:
    place = _one(fhirpath_places.select(document, type, operation.steps))
    *_, last = [step for step in operation.steps if step.kind == "name"] or [Step("name", "")]
    if not place.path:
        raise PlaceError("The whole resource cannot be replaced.")
    if isinstance(place.path[-1], int):
        document.replace(place.path, _value(operation.value, place.kind))
        _change_extensions(document, place.path, b"null")
        return
    parent = Place(place.path[:-1], _parent_kind(document, type, place.path))
    key, member = _member(parent.kind, str(last.value), operation.value)
    text = _value(operation.value, member.kind)
    if key == place.path[-1] and document.has(place.path):
        document.replace(place.path, text)
        _change_extensions(document, place.path, None)
    else:
        _delete(document, place.path)
        document.add((*parent.path, key), text)


def _parent_kind(document: Document, type: str, path: Path) -> str:
    """The kind of the element that has the member at this path."""
    kind = type
    for number, step in enumerate(path[:-1]):
        if isinstance(step, str):
            kind = members(fhirpath_places.kind_at(document, Place(path[:number], kind)))[step].kind
    return fhirpath_places.kind_at(document, Place(path[:-1], kind))


def _collection(document: Document, type: str, steps: list[Step]) -> tuple[Path, Member]:
    """The path of the array that a path without index names."""
    if not steps or steps[-1].kind != "name":
        raise PlaceError("The path does not lead to a list.")
    place = _one(fhirpath_places.select(document, type, steps[:-1]))
    member = members(fhirpath_places.kind_at(document, place)).get(str(steps[-1].value))
    if member is None or not member.repeats:
        raise PlaceError("The path does not lead to a list.")
    return (*place.path, str(steps[-1].value)), member


def _insert(document: Document, path: Path, index: int, text: bytes) -> None:
    length = document.length_or_none(path)
    if not 0 <= index <= (length or 0):
        raise PlaceError("The list is shorter.")
    if length is None:
        document.add(path, b"[" + text + b"]")
        return
    document.add((*path, index), text)
    if document.length_or_none(_sibling(path)) is not None:
        document.add((*_sibling(path), index), b"null")


def _move(document: Document, path: Path, source: int, destination: int) -> None:
    length = document.length_or_none(path) or 0
    if not 0 <= source < length or not 0 <= destination < length:
        raise PlaceError("The list is shorter.")
    for array in (path, _sibling(path)):
        if document.length_or_none(array) is not None:
            document.add((*array, destination), document.remove((*array, source)))


def _change_extensions(document: Document, path: Path, text: bytes | None) -> None:
    """Put ``text`` in the place of the extensions of a primitive at this path, or take them out."""
    other = (*_sibling(path[:-1]), path[-1]) if isinstance(path[-1], int) else _sibling(path)
    if not document.has(other):
        return
    if text is None:
        document.remove(other)
    else:
        document.replace(other, text)
    array = other[:-1]
    if isinstance(other[-1], int) and all(item == b"null" for item in jsontext.items(document.get(array))):
        document.remove(array)


def _sibling(path: Path) -> Path:
    """The path of the extensions of primitives at this path."""
    return (*path[:-1], f"_{path[-1]}")


def _value(part: dict[str, bytes], kind: str) -> bytes:
    """The JSON text of an element of this kind that a part ``value`` has, as a value or as parts."""
    for key, text in part.items():
        if key.startswith("value"):
            return text
    if "part" not in part:
        raise PlaceError("The operation has no value.")
    found: dict[str, list[bytes]] = {}
    repeated: set[str] = set()
    for each in map(jsontext.members, jsontext.items(part["part"])):
        key, member = _member(kind, str(jsontext.parse(each["name"])), each)
        found.setdefault(key, []).append(_value(each, member.kind))
        repeated |= {key} if member.repeats else set()
    if any(len(texts) > 1 for key, texts in found.items() if key not in repeated):
        raise PlaceError("An element that does not repeat has several values.")
    return jsontext.join_members({key: b"[" + b",".join(texts) + b"]" if key in repeated else texts[0] for key, texts in found.items()})
