"""What the server has to tell people outside its pages: a queue in the store, so that no notice is forgotten.

A notice names its kind and whom it is about.  What it says, and where it goes, is decided when it is sent
(:mod:`fhir_server.smart.notices.delivery`), so a code is never stored in plain text, and an address that was removed gets nothing.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fhir_server.smart.core.context import DAY, new_secret
from fhir_server.smart.core.due_queue import due_key, due_records
from fhir_server.store import KeyValueRecord, Store

NoticeKind = Literal["security", "contact-code", "recovery", "invitation"]
LIFE: Final = DAY  # then it is given up
_KIND: Final = "notice"


class Notice(msgspec.Struct, frozen=True):
    """A notice to be sent.

    ``id``       the same at each attempt
    ``created``  in microseconds
    ``subject``  of the account that it is about; "" for a ``recovery``, which is about those that have the address, and an ``invitation``
    ``detail``   what an ``invitation`` is for
    ``address``  the e-mail address it goes to; "" for the account's own at the moment of sending
    ``key``      its place in the queue
    """

    kind: NoticeKind
    id: str
    created: int
    subject: str = ""
    address: str = ""
    detail: dict[str, str] = {}
    attempts: int = 0
    key: str = ""


async def add(store: Store, kind: NoticeKind, *, subject: str = "", address: str = "", detail: dict[str, str] | None = None) -> None:
    """Queue a notice, which is due at once."""
    now = store.key_values.now()
    record = _record(Notice(kind, new_secret(), now, subject, address, detail or {}), now)
    await store.key_values.put(*record)


async def due_notices(store: Store, now: int, limit: int) -> list[Notice]:
    """Return the notices that are due, the longest due first, at most ``limit``."""
    found = await due_records(store, _KIND, now, limit)
    return [msgspec.structs.replace(msgspec.json.decode(text, type=Notice), key=key) for key, text in found]


async def postpone(store: Store, notice: Notice, pause: int, now: int) -> Notice | None:
    """Count an attempt and give the notice a later place, ``pause`` microseconds from now.  None if another process did so before."""
    record = _record(msgspec.structs.replace(notice, attempts=notice.attempts + 1), now + pause)
    taken = await store.key_values.exchange(_KIND, notice.key, 0, [record])
    return msgspec.structs.replace(notice, attempts=notice.attempts + 1, key=record.key) if taken else None


async def remove(store: Store, notice: Notice) -> None:
    """Remove a notice that was sent or given up."""
    await store.key_values.pop(_KIND, notice.key, 0)


def _record(notice: Notice, at: int) -> KeyValueRecord:
    text = msgspec.json.encode(msgspec.structs.replace(notice, key=""))
    return KeyValueRecord(_KIND, due_key(at, notice.id), text, notice.created + 2 * LIFE)
