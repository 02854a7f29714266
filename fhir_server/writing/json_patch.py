"""JSON Patch (RFC 6902) of the JSON text of a resource.

Values are put in as they are written: ``1.50`` stays ``1.50``.  One thing differs from RFC 6902, since R4's JSON has no empty arrays and
objects: what has become empty in the end is left out, and adding the item ``-`` or ``0`` of an array that is absent makes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fhir_server import budget, jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.writing.json_document import Document, PlaceError

MAX_OPERATIONS: Final = 1000
_MEMBERS: Final = {
    "add": ("value",),
    "remove": (),
    "replace": ("value",),
    "move": ("from",),
    "copy": ("from",),
    "test": ("value",),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: ``op``, ``path`` and ``source`` (``from``) as reference tokens, and the JSON text of its ``value``."""

    op: str
    path: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: bytes = b""


def parse(text: bytes) -> list[Operation]:
    """The operations of a JSON Patch document.  Raises Problem ``invalid`` for a text that is none."""
    value, text = jsontext.parse_compact(text)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Problem("invalid", "A JSON Patch is an array of operations.")
    if len(value) > MAX_OPERATIONS:
        raise Problem("invalid", f"A JSON Patch has at most {MAX_OPERATIONS} operations.")
    return [
        _operation(index, item, jsontext.members(part)) for index, (item, part) in enumerate(zip(value, jsontext.items(text), strict=True))
    ]


def _operation(index: int, item: dict[str, Any], parts: dict[str, bytes]) -> Operation:
    op = item.get("op")
    if not isinstance(op, str) or op not in _MEMBERS:
        raise Problem("invalid", f"Operation {index}: op is one of {', '.join(_MEMBERS)}.")
    for name in ("path", *_MEMBERS[op]):
        if name not in item:
            raise Problem("invalid", f"Operation {index}: {op} needs {name}.")
    return Operation(
        op, _pointer(index, item["path"]), _pointer(index, item["from"]) if op in ("move", "copy") else (), parts.get("value", b"")
    )


def _pointer(index: int, text: Any) -> tuple[str, ...]:
    """The reference tokens of a JSON Pointer (RFC 6901).  Raises Problem ``invalid``."""
    if not isinstance(text, str) or (text and not text.startswith("/")) or "~" in text.replace("~0", "").replace("~1", ""):
        raise Problem("invalid", f"Operation {index}: path and from are JSON Pointers, as /name/0/family.")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


def apply(operations: list[Operation], text: bytes, limit: int) -> bytes:
    """The text of a resource after all operations.

    Raises Problem ``unprocessable``, which names the operation, if one cannot be done or a ``test`` fails; ``too_large``.
    """
    document = Document(text, limit)
    spending = budget.current()
    for index, operation in enumerate(operations):
        if spending is not None:
            spending.remaining()
        try:
            _apply(operation, document)
        except PlaceError as error:
            raise Problem("unprocessable", f"Operation {index} ({operation.op}): {error}") from None
    return document.text()


def _apply(operation: Operation, document: Document) -> None:
    match operation.op:
        case "add":
            _add(document, operation.path, operation.value)
        case "remove":
            document.remove(_path(document, operation.path))
        case "replace":
            document.replace(_path(document, operation.path), operation.value)
        case "copy":
            _add(document, operation.path, document.get(_path(document, operation.source)))
        case "move":
            if operation.path[: len(operation.source)] == operation.source and operation.path != operation.source:
                raise PlaceError("A value cannot be moved into itself.")
            if operation.path != operation.source:
                _add(document, operation.path, document.remove(_path(document, operation.source)))
            elif not document.has(_path(document, operation.path)):
                raise PlaceError("There is nothing at this place.")
        case _:
            if not _same(jsontext.parse(document.get(_path(document, operation.path))), jsontext.parse(operation.value)):
                raise PlaceError("The value is another.")


def _add(document: Document, tokens: tuple[str, ...], value: bytes) -> None:
    if tokens and tokens[-1] in ("-", "0") and not _exists(document, tokens[:-1]):
        document.add(_path(document, tokens[:-1], new=True), b"[" + value + b"]")
        return
    document.add(_path(document, tokens, new=True), value)


def _exists(document: Document, tokens: tuple[str, ...]) -> bool:
    try:
        return document.has(_path(document, tokens))
    except PlaceError:
        return False


def _path(document: Document, tokens: tuple[str, ...], *, new: bool = False) -> Path:
    """Reference tokens as steps: positions in arrays, names in objects.  ``new``: the last one may be the end of an array."""
    path: Path = ()
    for number, token in enumerate(tokens):
        length = document.length(path)
        is_end = new and number == len(tokens) - 1
        if length is None:
            path = (*path, token)
        elif token == "-" and is_end:
            path = (*path, length)
        elif token.isascii() and token.isdigit() and len(token) < 10 and (token == "0" or token[0] != "0"):
            path = (*path, int(token))
        else:
            raise PlaceError("There is nothing at this place.")
    return path


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values (RFC 6902, 4.6): numbers by value, true is no number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
