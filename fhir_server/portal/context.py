"""What every page works with: who is signed in, and that person's View of their own record.

A page reads through the same plan as an app would that the person has allowed everything; there is no other way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from fhir_server.access.permissions import PermissionResolver
from fhir_server.access.view import View
from fhir_server.clock import MAX_INSTANT
from fhir_server.interactions.service import Service
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import Person, RecordChoice, own_reference
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens.tokens import Principal
from fhir_server.store import Snapshot, Transaction
from fhir_server.writing.writer import ResourceWriter

_EVERYTHING = resource_scopes("patient/*.cruds")


class NotYourRecordError(Exception):
    """This person may not decide who opens the record: it is not their own, or they are not (known to be) an adult."""


@dataclass(frozen=True, slots=True)
class PortalContext:
    """The rooms behind the pages."""

    smart: SmartContext
    service: Service
    resolver: PermissionResolver

    def today(self, now: int) -> date:
        """The civil date at ``now`` in the institution's time zone."""
        return datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(self.service.policy.timezone).date()

    def writing(self, tx: Transaction, now: int) -> ResourceWriter:
        return ResourceWriter(tx, self.service.labeler, self.service.base, now)

    async def records(self, user: User, now: int) -> Sequence[RecordChoice]:
        """The records this person may open, the person's own first."""
        return await self.smart.records(user.person(), now)

    async def own_record(self, snapshot: Snapshot, user: User, now: int) -> View:
        """An adult's View of her own record.  Raises NotYours for anybody the policy does not judge to be that."""
        permissions = await self.resolver.resolve(snapshot, _principal(user, user.person()), now)
        if user.role != "patient" or permissions.actor is None or permissions.actor.kind != "AS":
            raise NotYourRecordError
        return View(snapshot, permissions, now)

    async def may_share(self, user: User, now: int) -> bool:
        """Whether :meth:`own_record` gives this person a View."""
        async with self.smart.store.snapshot() as snapshot:
            try:
                await self.own_record(snapshot, user, now)
            except NotYourRecordError:
                return False
            return True


def _principal(user: User, person: Person) -> Principal:
    return Principal(
        client_id="portal",
        client_kind="app",
        client_clearance=frozenset(),
        trusted_writer=False,
        username=user.username,
        person=person,
        patient=person.patient,
        encounter=None,
        scopes=_EVERYTHING,
        fhir_user=own_reference(person),
        family="",
        expires=MAX_INSTANT,
    )
