"""What the interactions share: the store's two ways in, each handing out a View, and the server's fixed parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from fhir_server.access.authentication import Authenticator, PermissionsChangedError
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.consent.labeling import Labeler
from fhir_server.consent.policy import Policy
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request
from fhir_server.search.cursors import Cursors
from fhir_server.store import Snapshot, Store, Transaction
from fhir_server.writing.writer import ResourceWriter

T = TypeVar("T")
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a running server that interactions use.  ``new_id`` gives fresh random logical ids."""

    store: Store
    authenticator: Authenticator
    labeler: Labeler
    policy: Policy
    cursors: Cursors
    base: str
    max_entries: int
    new_id: Callable[[], str]

    async def authenticate(self, request: Request) -> None:
        """Let the caller in before its body is looked at.  Raises Problem ``unauthenticated``."""
        async with self.store.snapshot() as snapshot:
            await self._authenticate_in(snapshot, request)

    async def read_with_view(self, request: Request, job: Callable[[View], Awaitable[T]]) -> T:
        """Run ``job`` with the caller's View of one snapshot.  Raises Problem ``unauthenticated``."""
        async with self.store.snapshot() as snapshot:
            permissions = await self._authenticate_in(snapshot, request)
            return await job(View(snapshot, permissions, request.now))

    async def write_with_view(self, request: Request, job: Callable[[View, Transaction, ResourceWriter], Awaitable[T]]) -> T:
        """Run ``job`` in a transaction, with the caller's View of that same transaction.

        Raises Problem ``busy`` if the caller's rights keep changing under it.
        """
        for _ in range(_ATTEMPTS):
            async with self.store.snapshot() as snapshot:
                permissions = await self._authenticate_in(snapshot, request)

            async def inside(tx: Transaction, permissions: Permissions = permissions) -> T:
                view = View(tx, await self.authenticator.revalidate(tx, permissions, request.now), request.now)
                return await job(view, tx, ResourceWriter(tx, self.labeler, self.base, request.now))

            try:
                return await self.store.write(inside)
            except PermissionsChangedError:
                continue
        raise Problem("busy", "The server is busy; try again.")

    async def view_in_transaction(self, view: View, tx: Transaction) -> View:
        """The same caller's View once the transaction has written: classes it made are judged, facts it changed count."""
        return View(tx, await self.authenticator.refresh(tx, view.permissions, view.now), view.now)

    async def _authenticate_in(self, snapshot: Snapshot, request: Request) -> Permissions:
        request.permissions = await self.authenticator.authenticate(snapshot, request.headers.get("authorization"), request.now)
        return request.permissions
