"""What all interactions share: authentication, a View for reads, a View in a transaction for writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar, get_args

from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.audit_trail import AuditTrail
from fhir_server.access.authentication import Authenticator, PermissionsChangedError
from fhir_server.access.permissions import Permissions
from fhir_server.access.stored_parameters import combined, read_definitions
from fhir_server.access.view import View
from fhir_server.consent.labeling import Labeler
from fhir_server.consent.policy import Policy
from fhir_server.errors import Problem
from fhir_server.interactions.health_card_content import CardIssuer
from fhir_server.interactions.messages import AuditContext, RecordedWrite, Request, Response
from fhir_server.interactions.profile_claims import ChecksNeededError, ProfileChecks
from fhir_server.packages.validator import ProfileValidator
from fhir_server.search.cursors import Cursors
from fhir_server.search.custom_parameters import CustomParameters, in_use
from fhir_server.store import Snapshot, Store, Transaction
from fhir_server.web.public_fetch import Hosts, Network
from fhir_server.writing.parser import Parser
from fhir_server.writing.search_parameters import SearchParameterFollower
from fhir_server.writing.write_times import WritesInProgress, write_time
from fhir_server.writing.writer import ResourceWriter

T = TypeVar("T")
Handling = Literal["strict", "lenient"]
_ATTEMPTS = 8


class Sources(NamedTuple):
    """From where the server fetches files that a client names: how it reaches them, and at which hosts they may be."""

    network: Network = Network()
    hosts: Hosts = Hosts.PUBLIC


PUBLIC_SOURCES = Sources()


async def no_restriction() -> None:
    """Allow every write."""


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What a write works with: the store transaction ``tx``, the caller's View of it, its resource writer, checks of profiles."""

    view: View
    tx: Transaction
    writer: ResourceWriter
    checks: ProfileChecks


@dataclass(frozen=True, slots=True)
class Service:
    """The components that interactions use.

    ``base``         the FHIR base URL, without a slash at its end
    ``max_entries``  the largest number of entries in a Bundle
    ``new_id``       returns a new random logical id
    ``audit_trail``  reads the audit log for callers
    ``profiles``     validates resources against profiles
    ``handling``  what happens to unknown parameters of a request that does not say so
    ``max_conditional_deletes``  the largest number of resources that one conditional delete deletes
    ``sources``  from where the files of an import come
    ``require_writable``  raises Problem ``read_only`` while nothing may be written
    ``endpoints``    which hosts notifications may be sent to
    ``writes``       dates new versions, and says how far all of them are stored
    ``cards``        signs health cards
    ``sealed``, ``opened``  encrypt and decrypt secrets that the server keeps for a client
    """

    store: Store
    authenticator: Authenticator
    labeler: Labeler
    policy: Policy
    cursors: Cursors
    parser: Parser
    base: str
    max_entries: int
    new_id: Callable[[], str]
    audit_trail: AuditTrail
    profiles: ProfileValidator
    cards: CardIssuer
    max_conditional_deletes: int = 1
    require_writable: Callable[[], Awaitable[None]] = no_restriction
    handling: Handling = "strict"
    sources: Sources = PUBLIC_SOURCES
    endpoints: Hosts = Hosts.PUBLIC
    writes: WritesInProgress = field(default_factory=WritesInProgress)
    sealed: Callable[[bytes], bytes] = bytes
    opened: Callable[[bytes], bytes] = bytes

    def is_strict(self, request: Request) -> bool:
        """Whether a parameter that the server does not know is an error, as the Prefer header says, otherwise the setting."""
        return self._handling(request) != "lenient"

    def applied_preference(self, request: Request) -> tuple[tuple[bytes, bytes], ...]:
        """The header that confirms a preference for the handling of parameters (RFC 7240 3)."""
        if request.preference("handling", "") not in get_args(Handling):
            return ()
        return ((b"preference-applied", f"handling={self._handling(request)}".encode()),)

    def _handling(self, request: Request) -> str:
        preferred = request.preference("handling", self.handling)
        return preferred if preferred in get_args(Handling) else self.handling

    async def authenticate(self, request: Request, audit: AuditContext) -> Permissions:
        """Authenticate the caller, before the body is read.  Raises Problem ``unauthenticated``."""
        async with self.store.snapshot() as snapshot:
            return await self._permissions(snapshot, request, audit)

    async def read_with_view(
        self, request: Request, audit: AuditContext, job: Callable[[View], Awaitable[T]], expected: tuple[str, str] | None = None
    ) -> T:
        """Run ``job`` with the caller's View of one snapshot.  ``expected``: (type, id) of the row that it probably reads.

        Raises Problem ``unauthenticated``.
        """
        if (AUDIT_EVENT in request.path or _names_all_types(request.path)) and audit.store_lines is not None:
            await audit.store_lines()
        async with self.store.snapshot() as snapshot:
            permissions = await self._permissions(snapshot, request, audit, expected)
            with in_use(permissions.parameters):
                return await job(View(snapshot, permissions, request.now, audit.shown))

    async def write_with_view(self, request: Request, audit: AuditContext, job: Callable[[WriteContext], Awaitable[T]]) -> T:
        """Run ``job`` in a transaction, with the caller's View of this transaction.

        The job can run more than once.  Raises Problem ``unauthenticated``, or ``busy`` if the caller's permissions change
        during each attempt, or ``unprocessable`` for a resource that does not meet its profiles.
        """
        with self.writes.begun(self.store.key_values.now):
            return await self._write_with_view(request, audit, job)

    async def _write_with_view(self, request: Request, audit: AuditContext, job: Callable[[WriteContext], Awaitable[T]]) -> T:
        checks = ProfileChecks(self.profiles)
        for attempt in range(_ATTEMPTS):
            permissions = audit.permissions if attempt == 0 and audit.just_admitted else None
            if permissions is None:
                permissions = await self.authenticate(request, audit)

            async def run(tx: Transaction, permissions: Permissions = permissions) -> tuple[T, RecordedWrite | None]:
                view = View(tx, await self.authenticator.revalidate(tx, permissions, request.now), request.now, audit.shown)
                known, written_at = view.permissions, write_time(request.now, self.store.key_values.now())
                follower = SearchParameterFollower(tx, known.parameters)
                writer = ResourceWriter(tx, self.labeler, self.base, written_at, pending=known.pending, parameters=follower)
                checks.begin()
                with in_use(known.parameters):
                    result = await job(WriteContext(view, tx, writer, checks))
                checks.require_made()
                status = result.status if isinstance(result, Response) else 200  # of a transaction
                return result, audit.with_write(tx, status) if audit.with_write else None

            try:
                result, audit.recorded = await self.store.write(run)
                return result
            except PermissionsChangedError:
                continue
            except ChecksNeededError:
                await checks.make()
        raise Problem("busy", "The server is busy; try again.")

    async def custom_parameters(self) -> CustomParameters:
        """The search parameters that the institution has added, for documents that are the same for all callers."""
        async with self.store.snapshot() as snapshot:
            return combined((await read_definitions(snapshot)).values())

    async def view_in_transaction(self, view: View, tx: Transaction) -> View:
        """The same caller's View after writes of the transaction, with permissions that include the changed data."""
        return View(tx, await self.authenticator.refresh(tx, view.permissions, view.now), view.now, view.shown)

    async def _permissions(
        self, snapshot: Snapshot, request: Request, audit: AuditContext, expected: tuple[str, str] | None = None
    ) -> Permissions:
        if request.caller is not None:
            audit.permissions = await self.authenticator.permissions_of_page(snapshot, request.caller, request.now)
            return audit.permissions
        authorization = request.headers.get("authorization")
        audit.permissions = await self.authenticator.authenticate(snapshot, authorization, request.now, expected, request.proven)
        return audit.permissions


def _names_all_types(path: tuple[str, ...]) -> bool:
    """Whether a request may read resources of any type, AuditEvents too."""
    return path[:1] in ((), ("_search",)) or path[2:3] == ("*",)
