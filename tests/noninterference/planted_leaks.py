"""The switchboard: leaks built into the running server on purpose, by the channels of the threat model.

Each entry of :data:`LEAKS` breaks one thing as a careless change might.  The generic twin run must notice every one; a leak
that it does not notice fails the build like a failing test.  The leaks themselves are in ``leaks_reading`` (3.1 to 3.3),
``leaks_acting`` (3.4 to 3.8) and ``leaks_time`` (3.7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fhir_server.access.view import View
from fhir_server.interactions import routing
from fhir_server.search.visibility import Visibility, VisibilityClause

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Leak:
    """``channel`` of the threat model; ``stored``: the leak is in what is written, so worlds must be built with it."""

    name: str
    channel: str
    plant: Callable[[Patch], None]
    stored: bool = False


LEAKS: list[Leak] = []


def leak(channel: str, *, stored: bool = False) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        LEAKS.append(Leak(plant.__name__.replace("_", " "), channel, plant, stored))
        return plant

    return add


async def unlimited(view: View, patients: frozenset[str] | None = None) -> Visibility:
    """What nobody but the institution may see: every row (of these patients)."""
    return Visibility((VisibilityClause(patients, frozenset(range(len(await view._snapshot.classes()))), released_only=False),), view.now)


async def of_record(view: View) -> Visibility:
    return await unlimited(view, view.permissions.patients)


def sighted(choose: Callable[[View], Any]) -> Callable[..., Any]:
    """Let a method of View see by another sight."""

    def with_sight(method: Any) -> Any:
        async def wrapped(self: View, type: str, *args: Any, **kwargs: Any) -> Any:
            visibility = await choose(self)
            other = View(self._snapshot, self.permissions, self.now)
            other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
            return await method(other, type, *args, **kwargs)

        return wrapped

    return with_sight


class AnyClass(frozenset[int]):
    """The set of all classes."""

    def __contains__(self, _: object) -> bool:
        return True


def relook(patch: Patch, code: str, look: Any) -> None:
    """Put another reading function in the table of interactions, which holds the old one by value."""
    for methods in routing._BY_KEY.values():
        for method, row in list(methods.items()):
            if row.code == code and row.read_handler is not None:
                made = routing._read_route(row.code, row.method, row.shape, look)
                patch.setitem(methods, method, made)
