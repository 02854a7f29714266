"""What the portal pages share: :class:`PortalContext`, with a person's View of their own record.

A page reads with the permissions of an app that has all scopes of the person. Consent and policy apply to it as to any app.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from fhir_server.access.resolver import PermissionResolver
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.policy import ActorKind
from fhir_server.interactions.service import Service
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import records
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import RecordChoice, own_reference
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot, Transaction
from fhir_server.writing.writer import ResourceWriter

_ALL_SCOPES = resource_scopes("patient/*.cruds")


class NotYourRecordError(Exception):
    """The person may not share the record: it is not their own, or they are not known to be an adult."""


@dataclass(frozen=True, slots=True)
class PortalContext:
    """The components that the portal pages use."""

    smart: SmartContext
    service: Service
    resolver: PermissionResolver

    def today(self, now: int) -> date:
        """Return the date at ``now`` (microseconds since 1970 UTC) in the organization's time zone."""
        return datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(self.service.policy.timezone).date()

    def writer(self, tx: Transaction, now: int) -> ResourceWriter:
        return ResourceWriter(tx, self.service.labeler, self.service.base, now)

    async def records(self, user: User, now: int) -> Sequence[RecordChoice]:
        """Return the records this person may open, the person's own first; of a clinician's patients, the first page."""
        if records.are_searched(user.person()):
            return (await self.smart.charts.find(user.person(), user.subject, "", "", now)).charts
        return await self.smart.records(user.person(), now)

    def caller(self, user: User, choice: RecordChoice) -> Principal:
        """Who asks when the person opens a record."""
        return _principal(user, choice.patient, choice.fhir_user or own_reference(user.person()))

    async def own_record(self, snapshot: Snapshot, user: User, now: int) -> View:
        """Return an adult's View of their own record. Raises NotYourRecordError for everyone who is not an adult patient."""
        permissions = await self.resolver.resolve(snapshot, _principal(user, user.patient, own_reference(user.person())), now)
        if user.role != "patient" or permissions.actor is None or permissions.actor.kind != ActorKind.ADULT_SELF:
            raise NotYourRecordError
        return View(snapshot, permissions, now)

    async def may_share(self, user: User, now: int) -> bool:
        """Return whether :meth:`own_record` returns a View for this person."""
        async with self.smart.store.snapshot() as snapshot:
            try:
                await self.own_record(snapshot, user, now)
            except NotYourRecordError:
                return False
            return True


def _principal(user: User, patient: str | None, fhir_user: str | None) -> Principal:
    return Principal(
        client_id="portal",
        client_kind="app",
        client_clearance=frozenset(),
        trusted_writer=False,
        username=user.username,
        person=user.person(),
        patient=patient,
        encounter=None,
        scopes=_ALL_SCOPES,
        fhir_user=fhir_user,
        family="",
        expires=MAX_INSTANT,
        owner=user.owner_name,
    )
