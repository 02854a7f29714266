"""Leaks that are built into the running server on purpose, to test the noninterference test.

Each entry of :data:`LEAKS` breaks one thing, as a careless change might.  The generic run must detect every leak; a leak that
it does not detect fails the tests.  The leaks are in the modules ``planted_leaks_*`` beside this one.
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
    """A planted leak.  ``channel`` is the code of its channel; the first letter is the family.

    ``stored``: the leak changes what is written, so the servers must be filled with it.
    """

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
    """Return the visibility of the institution's feed: every row, or every row of these patients."""
    return Visibility((VisibilityClause(patients, frozenset(range(len(await view._snapshot.classes()))), released_only=False),), view.now)


async def of_record(view: View) -> Visibility:
    return await unlimited(view, view.permissions.patients)


def sighted(choose: Callable[[View], Any]) -> Callable[..., Any]:
    """Return a decorator that runs a View method with the visibility that ``choose`` returns."""

    def with_sight(method: Any) -> Any:
        async def wrapped(self: View, type: str, *args: Any, **kwargs: Any) -> Any:
            visibility = await choose(self)
            other = View(self._snapshot, self.permissions, self.now)
            other._visibility = lambda type, interactions: visibility  # type: ignore[method-assign]
            return await method(other, type, *args, **kwargs)

        return wrapped

    return with_sight


class AnyClass(frozenset[int]):
    """A set that contains every class."""

    def __contains__(self, _: object) -> bool:
        return True


def reroute(patch: Patch, change: Callable[[routing.Route], routing.Route | None]) -> None:
    """Replace the routes for which ``change`` returns another one."""
    for key, routes in list(routing._BY_KEY.items()):
        patch.setitem(routing._BY_KEY, key, [change(route) or route for route in routes])


def relook(patch: Patch, code: str, look: Any, name: str = "") -> None:
    """Replace the read handler of one interaction, or of the operation of this name, in the routing table."""
    for key, routes in routing._BY_KEY.items():
        made = [
            routing._read_route(row.code, row.method, row.shape, look, row.body, row.admit, row.typed)
            if row.code == code and row.read_handler is not None and (not name or row.shape[-1] == name)
            else row
            for row in routes
        ]
        patch.setitem(routing._BY_KEY, key, made)
