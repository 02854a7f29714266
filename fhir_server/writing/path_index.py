"""Finds the parts of a body that lie around or within another, in the time that one look-up takes: a row may have thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from fhir_server.jsontext import Path

T = TypeVar("T")


class PathIndex(Generic[T]):
    """Values by the paths of the parts that they belong to."""

    __slots__ = ("_at", "_within", "members")

    def __init__(self, parts: Iterable[tuple[Path, T]]) -> None:
        self._at: dict[Path, list[T]] = {}
        self._within: dict[Path, list[T]] = {}  # by each path around that of the part
        for path, value in parts:
            self._at.setdefault(path, []).append(value)
            for length in range(len(path)):
                self._within.setdefault(path[:length], []).append(value)
        self.members = {path[0] for path in self._at if path}
        """The members of the resource in which the parts lie."""

    def overlapping(self, path: Path) -> Iterator[T]:
        """The values of the parts within the one at ``path``, then of that part, then of those around it, the innermost first.

        Of each of these three, the values are in the order in which they were given.
        """
        yield from self._within.get(path, ())
        for length in range(len(path), -1, -1):
            yield from self._at.get(path[:length], ())
