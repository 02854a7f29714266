"""Jobs that are kept for later requests: exports, imports, and questions that are answered later.

A job belongs to the client, person and patient context that began it.  An owner has a limited number of a kind at a time, each in a slot
of its own, from the kick-off until it is deleted or expires.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Generic, Protocol, TypeVar

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.errors import Problem
from fhir_server.store import KeyValueStore


class OwnedJob(Protocol):
    """What every job, a msgspec.Struct, has.  ``slot``: its place among its owner's; -1 before it is stored."""

    @property
    def owner(self) -> str:
        """See :func:`owner`."""

    @property
    def slot(self) -> int:
        """Which of the owner's slots it takes."""

    @property
    def expires(self) -> int:
        """When the job is deleted, in microseconds since 1970 UTC."""


J = TypeVar("J", bound=OwnedJob)


def owner(permissions: Permissions) -> str:
    """A digest of the client, the person and the patient in context: only they can use the job."""
    principal = permissions.principal
    return sha256(msgspec.json.encode((principal.client_id, principal.owner or principal.username, principal.patient))).hexdigest()


class OwnedJobs(Generic[J]):
    """The jobs of one kind.

    ``kind``, ``slots``  the kinds of their records, and of those that say which slots are taken
    ``type``             of the records
    ``most``             how many an owner has at a time; ``what``: the jobs of an owner, in a message
    ``absent``           the message for a job that does not exist
    """

    def __init__(self, kind: str, slots: str, type: type[J], *, most: int, what: str, absent: str) -> None:
        self._kind, self._slots, self._type = kind, slots, type
        self.most, self._what, self._absent = most, what, absent

    async def add(self, key_values: KeyValueStore, id: str, job: J) -> None:
        """Store a new job until it expires.  Raises Problem ``too_many`` if the owner has as many as are allowed."""
        for slot in range(self.most):
            if await key_values.put_if_absent(self._slots, f"{job.owner}/{slot}", id.encode(), job.expires):
                record = msgspec.json.encode(msgspec.structs.replace(job, slot=slot))  # type: ignore[type-var]
                await key_values.put(self._kind, id, record, job.expires)
                return
        text = f"There are {self.most} {self._what} already. Delete one that you no longer need, or wait until it expires."
        raise Problem("too_many", text)

    async def find(self, key_values: KeyValueStore, id: str, owner: str, now: int) -> tuple[J, bytes]:
        """The owner's job, and as it is stored.  Raises Problem ``not_found`` if there is none, or it belongs to another owner."""
        text = await key_values.get(self._kind, id, now)
        job = msgspec.json.decode(text, type=self._type) if text else None
        if job is None or text is None or job.owner != owner:
            raise self.not_found()
        return job, text

    async def remove(self, key_values: KeyValueStore, id: str, owner: str, now: int) -> J:
        """Delete the owner's job and return it as it was last.  Raises Problem ``not_found``, also if another request deletes it."""
        await self.find(key_values, id, owner, now)
        text = await key_values.pop(self._kind, id, now)
        if text is None:
            raise self.not_found()
        job = msgspec.json.decode(text, type=self._type)
        await key_values.pop(self._slots, f"{owner}/{job.slot}", now)
        return job

    def not_found(self) -> Problem:
        """The Problem of a job that does not exist."""
        return Problem("not_found", self._absent)
