"""Looks at a store without creating or changing anything: for ``fhir-server doctor``, and for ``serve`` before it starts.

The module ``<scheme>.inspection`` of each store has ``inspector(url)``.  The memory store has none: it is new each time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Literal, NamedTuple, Protocol

from fhir_server.store.interface import Store

StoreState = Literal["missing", "empty", "foreign", "incomplete", "present"]


class Identity(NamedTuple):
    """What is at the URL of a store.

    ``missing``: nothing; ``empty``: a file or database that holds nothing yet; ``foreign``: the data of another program;
    ``incomplete``: a copy or a restored backup that was interrupted.  ``schema`` is the number that the store names,
    ``known_schema`` the newest that this program knows.
    """

    state: StoreState
    schema: int = 0
    known_schema: int = 0


class Inspector(Protocol):
    """A store, opened for reading alone.  Its methods raise ValueError or OSError, with a message for the operator."""

    async def identify(self) -> Identity:
        """Return what is there.  Call it first."""

    async def find_damage(self, *, thorough: bool) -> tuple[str, ...]:
        """Return what is damaged, as sentences; () if the store is whole.  ``thorough`` reads everything, which takes its time."""

    async def count_resources(self) -> int:
        """Return the number of current resources."""

    async def newest(self) -> int:
        """Return when the newest version was written, in microseconds since 1970 UTC; 0 if there is none."""

    def store(self) -> Store:
        """Return the store for reading; a write raises RuntimeError.  Call it only if :meth:`identify` found it ``present``."""

    def is_outdated(self) -> bool:
        """Return whether the store was changed in a way that this inspector cannot follow, so that another must look again."""

    async def close(self) -> None:
        """Close all connections."""


def inspect(url: str) -> Inspector | None:
    """Return an inspector of the store at ``url``; None for a kind of store that outlives no process.

    Raises ValueError for a scheme that no module implements.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "memory":
        return None
    try:
        module = import_module(f"fhir_server.store.{scheme}.inspection")
    except ModuleNotFoundError:
        raise ValueError(f"No store for URLs that start with {scheme!r}.") from None
    inspector: Inspector = module.inspector(url)
    return inspector
