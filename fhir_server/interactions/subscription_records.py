"""How Subscriptions are kept: records beside exports and other jobs, each of one owner, in the family of the grant that made it.

So whatever revokes the grant removes its Subscriptions in the same step.  A record has everything: what the subscriber sent, whose
access it rests on, how far it has come.  It is changed only by whoever has read its last value, and never brought back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View
from fhir_server.access.visible_changes import EntryKey
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import MAX_INSTANT, SECOND, instant_text
from fhir_server.errors import Problem
from fhir_server.interactions.subscription_plan import Plan, plan_of
from fhir_server.smart.core.encryption import SealedRecords
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.store import KeyValueStore
from fhir_server.web.public_fetch import Hosts

TYPE: Final = "Subscription"
MAX_SUBSCRIPTIONS: Final = 30  # of one owner at a time, until they are deleted
KEPT_EVENTS: Final = 100  # the last ones, for $events
KIND: Final = "subscription"
_SLOT: Final = "subscription-slot"
_CHANGE: Final = "subscription-change"
_ENDED_LIFE: Final = 30 * 24 * 3600 * SECOND


class SentEvent(msgspec.Struct, frozen=True):
    """An event of which the endpoint was told: its number since the start, and the version as the subscriber counts versions."""

    number: int
    type: str
    id: str
    version: int
    updated: int


class Subscription(msgspec.Struct, frozen=True):
    """A Subscription.

    ``owner``    see :func:`~fhir_server.interactions.owned_jobs.owner`; ``slot``: its place among the owner's
    ``grant``    what the token allowed with which it was made
    ``text``     the resource as sent, without ``id``, ``meta``, ``status``, ``error`` and ``channel.header``
    ``headers``  the lines of ``channel.header``, which no answer shows, as a sealed JSON array; empty without any
    ``version``, ``updated``  of the resource
    ``asked``    whether the endpoint has accepted the handshake
    ``since``, ``after``  what the endpoint has been told of: all changes before this instant and all up to this entry
    ``number``   events since the start
    ``failures``  attempts in a row that failed, the first of them at ``failing_since``
    ``due``      no attempt is made before
    ``sent``     when the endpoint was last told anything
    """

    owner: str
    slot: int
    grant: TokenGrant
    text: str
    headers: bytes
    version: int
    updated: int
    since: int
    status: str = "requested"
    error: str = ""
    asked: bool = False
    after: EntryKey | None = None
    number: int = 0
    failures: int = 0
    failing_since: int = 0
    due: int = 0
    sent: int = 0
    recent: tuple[SentEvent, ...] = ()

    @property
    def expires(self) -> int:
        """When the record is deleted, in microseconds: some time after it ended."""
        return self.updated + _ENDED_LIFE if self.status == "off" else MAX_INSTANT

    def with_status(self, status: str, now: int, error: str = "") -> Subscription:
        """The Subscription with this status: another version, if that differs."""
        if (status, error) == (self.status, self.error):
            return self
        return msgspec.structs.replace(self, status=status, error=error, version=self.version + 1, updated=max(now, self.updated + 1000))

    def plan(self, base: str, hosts: Hosts, opened: Callable[[bytes], bytes] | None = None) -> Plan:
        """What it asks for; with ``opened``, which decrypts them, also the headers of its notifications.

        Raises Problem ``unprocessable`` if the server does not do that any more, and what ``opened`` raises.
        """
        resource = jsontext.parse(self.text.encode())
        lines = msgspec.json.decode(opened(self.headers)) if opened is not None and self.headers else []
        return plan_of({**resource, "channel": {**resource["channel"], "header": lines}}, base, hosts)

    def resource(self, id: str) -> VisibleVersion:
        """The resource as its owner sees it."""
        members = jsontext.members(self.text.encode())
        meta = {"versionId": f'"{self.version}"'.encode(), "lastUpdated": jsontext.dumps(instant_text(self.updated))}
        head = {"resourceType": b'"Subscription"', "id": jsontext.dumps(id), "meta": jsontext.join_members(meta)}
        head["status"] = jsontext.dumps(self.status)
        if self.error:
            head["error"] = jsontext.dumps(self.error)
        rest = {name: part for name, part in members.items() if name not in head}
        return VisibleVersion(TYPE, id, self.version, self.updated, jsontext.join_members(head | rest), is_complete=True)


SEALED: Final = SealedRecords(KIND, "fhir-server headers of subscriptions", Subscription, "headers")


class Stored(msgspec.Struct, frozen=True):
    """A Subscription as it was read: its key and its record."""

    key: str
    subscription: Subscription
    record: bytes

    @property
    def id(self) -> str:
        """The id of the resource."""
        return self.key.partition("/")[2]

    def version(self) -> VisibleVersion:
        """The resource as its owner sees it."""
        return self.subscription.resource(self.id)


def _stored(key: str, record: bytes) -> Stored:
    return Stored(key, msgspec.json.decode(record, type=Subscription), record)


async def find(values: KeyValueStore, key: str, now: int) -> Stored | None:
    """The Subscription with this key, ``owner/id``; None if it is deleted, or its grant was revoked."""
    record = await values.get(KIND, key, now)
    return None if record is None else _stored(key, record)


async def list_all(values: KeyValueStore, now: int) -> list[Stored]:
    """All Subscriptions, of all owners."""
    return [_stored(*each) for each in await values.list_all(KIND, now)]


async def list_own(view: View, owner: str) -> list[Stored]:
    """The Subscriptions of one owner ("": of all), in the order of their ids."""
    found = [_stored(*each) for each in await view.records_unfiltered(KIND, f"{owner}/" if owner else "")]
    return sorted((stored for stored in found if stored.subscription.expires > view.now), key=lambda stored: stored.id)


async def add(values: KeyValueStore, id: str, subscription: Subscription, mark: str) -> None:
    """Keep a new Subscription.  ``mark``: a new random text.  Raises Problem ``too_many`` if the owner has as many as are allowed."""
    family, owner = subscription.grant.family, subscription.owner
    for slot in range(MAX_SUBSCRIPTIONS):
        if await values.put_if_absent(_SLOT, f"{owner}/{slot}", id.encode(), MAX_INSTANT, family):
            record = msgspec.json.encode(msgspec.structs.replace(subscription, slot=slot))
            await values.put(KIND, f"{owner}/{id}", record, MAX_INSTANT, family)
            await note_change(values, mark)
            return
    raise Problem("too_many", f"There are {MAX_SUBSCRIPTIONS} Subscriptions of yours already. Delete one that you no longer need.")


async def replace(values: KeyValueStore, stored: Stored, changed: Subscription) -> Stored | None:
    """Store a changed Subscription.  None, and nothing is stored, if it was changed or ended since it was read."""
    record = msgspec.json.encode(changed)
    if not await values.replace_value(KIND, stored.key, stored.record, record, changed.expires):
        return None
    if changed.expires != stored.subscription.expires:  # its place is free when it is gone
        id = stored.id.encode()
        await values.replace_value(_SLOT, f"{changed.owner}/{changed.slot}", id, id, changed.expires)
    return Stored(stored.key, changed, record)


async def remove(values: KeyValueStore, stored: Stored, now: int) -> None:
    """Delete a Subscription."""
    await values.pop(KIND, stored.key, now)
    await values.pop(_SLOT, f"{stored.subscription.owner}/{stored.subscription.slot}", now)


async def note_change(values: KeyValueStore, mark: str) -> None:
    """Let the server that delivers know that there is a new Subscription, or a changed one.  ``mark``: a new random text."""
    await values.put(_CHANGE, "", mark.encode(), MAX_INSTANT)


async def last_change(values: KeyValueStore, now: int) -> bytes | None:
    """What changes with each :func:`note_change`; None if there has never been a Subscription."""
    return await values.get(_CHANGE, "", now)
