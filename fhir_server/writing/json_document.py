"""A JSON text that is changed at places: only what lies on the way to a place is taken apart, all other text stays as it is.

So the digits of numbers survive, and a change of a large resource costs little.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path

Node = bytes | dict[str, Any] | list[Any]
"""A value: its JSON text, or its members or items, each of which is a Node."""
_ABSENT: Final = "There is nothing at this place."


class PlaceError(Exception):
    """A place does not exist, or cannot take what it is given.  The text says why, without anything of the document."""


class Document:
    """The JSON text of a resource, while it is changed.

    ``limit``: how many bytes may be put into it; more raises Problem ``too_large``, since a copy of a copy grows without bound.
    """

    def __init__(self, text: bytes, limit: int) -> None:
        self._root: Node = text
        self._left = limit

    def text(self) -> bytes:
        """The JSON text as it is now, without arrays and objects that have become empty: R4's JSON has none."""
        return _without_emptied(self._root)

    def get(self, path: Path) -> bytes:
        """The JSON text at a place.  Raises PlaceError if there is none."""
        return text_of(self._at(path))

    def has(self, path: Path) -> bool:
        """Whether there is a value at this place."""
        try:
            self._at(path)
        except PlaceError:
            return False
        return True

    def length(self, path: Path) -> int | None:
        """The number of items of the array at a place; None if there is no array.  Raises PlaceError if there is nothing."""
        node = self._opened(path)
        return len(node) if isinstance(node, list) else None

    def length_or_none(self, path: Path) -> int | None:
        """As :meth:`length`; None also for a value without items and members, and for nothing."""
        try:
            return self.length(path)
        except PlaceError:
            return None

    def names(self, path: Path) -> tuple[str, ...]:
        """The names of the members of the object at a place; none if there is no object."""
        try:
            node = self._opened(path)
        except PlaceError:
            return ()
        return tuple(node) if isinstance(node, dict) else ()

    def add(self, path: Path, text: bytes) -> None:
        """Put a value into an array before the item at this position, or into an object under a name.  Raises PlaceError."""
        self._take(len(text))
        if not path:
            self._root = text
            return
        parent, step = self._opened(path[:-1]), path[-1]
        if isinstance(parent, list) and isinstance(step, int) and step <= len(parent):
            parent.insert(step, text)
        elif isinstance(parent, dict) and isinstance(step, str):
            parent[step] = text
        else:
            raise PlaceError(_ABSENT)

    def replace(self, path: Path, text: bytes) -> None:
        """Put a value in the place of another.  Raises PlaceError if there is none."""
        self._at(path)
        self._take(len(text))
        if not path:
            self._root = text
            return
        self._opened(path[:-1])[path[-1]] = text  # type: ignore[index]

    def remove(self, path: Path) -> bytes:
        """Take a value out and return it.  Raises PlaceError if there is none."""
        text = self.get(path)
        if not path:
            raise PlaceError("The whole resource cannot be removed.")
        del self._opened(path[:-1])[path[-1]]  # type: ignore[arg-type]
        return text

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Problem("too_large", "The patch makes the resource larger than a single resource may be.")

    def _at(self, path: Path) -> Node:
        if not path:
            return self._root
        parent, step = self._opened(path[:-1]), path[-1]
        if (isinstance(parent, list) and isinstance(step, int) and step < len(parent)) or (isinstance(parent, dict) and step in parent):
            found: Node = parent[step]  # type: ignore[index]
            return found
        raise PlaceError(_ABSENT)

    def _opened(self, path: Path) -> dict[str, Any] | list[Any]:
        """The members or items at a place, which can be changed.  Raises PlaceError for a value without any."""
        node = self._at(path)
        if not isinstance(node, bytes):
            return node
        if node[:1] not in (b"{", b"["):
            raise PlaceError(_ABSENT)
        opened: dict[str, Any] | list[Any] = jsontext.members(node) if node[:1] == b"{" else jsontext.items(node)
        if not path:
            self._root = opened
        else:
            self._opened(path[:-1])[path[-1]] = opened  # type: ignore[index]
        return opened


def text_of(node: Node) -> bytes:
    """The JSON text of a node."""
    if isinstance(node, bytes):
        return node
    if isinstance(node, dict):
        return jsontext.join_members({name: text_of(value) for name, value in node.items()})
    return b"[" + b",".join([text_of(item) for item in node]) + b"]"


def _without_emptied(node: Node) -> bytes:
    """As :func:`text_of`; b"" for what has nothing left in it."""
    if isinstance(node, bytes):
        return node
    if isinstance(node, dict):
        members = {name: text for name, value in node.items() if (text := _without_emptied(value))}
        return jsontext.join_members(members) if members else b""
    items = [text for item in node if (text := _without_emptied(item))]
    return b"[" + b",".join(items) + b"]" if items else b""
