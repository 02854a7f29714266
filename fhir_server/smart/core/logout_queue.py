"""Which clients have to be told that a session has ended: a queue in the store, so that no end is forgotten, whoever brings it about.

A session that signs its user in to clients has a record for each of them, and a *watch* that is due when the session lapses unless it
is used again.  Whoever ends a session moves its clients to the queue at once (:func:`end`).  If that is missed (the process died, the
session lapsed, its records are gone), the watch finds out when it is due.  A client is moved in one atomic step, so it gets one notice
for a session.

Watches and notices are queues by the instant at which they are due (:mod:`~fhir_server.smart.core.due_queue`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.core.context import DAY, SECOND, SESSION_LIFE, digest
from fhir_server.smart.core.due_queue import due_key, due_records, name_of
from fhir_server.smart.core.token_grants import session_end
from fhir_server.store import KeyValueRecord, Store

CLIENTS: Final = "clients-of-session"
WATCH: Final = "session-watch"
NOTICE: Final = "logout-notice"
_LIFE: Final = SESSION_LIFE + DAY
_MARGIN: Final = 5 * SECOND


class SignedIn(msgspec.Struct, frozen=True):
    """What a client has to be told when the session ends: ``sub`` and ``sid`` as in its id_tokens.  Holds after the account is gone."""

    client_id: str
    sub: str
    sid: str
    username: str


class Notice(msgspec.Struct, frozen=True):
    """A logout token to be sent.  ``key`` is its place in the queue, ``attempts`` how often it was tried."""

    signed_in: SignedIn
    attempts: int = 0
    key: str = ""


def session_id(session_key: str, client_id: str) -> str:
    """The ``sid`` of a session for one client: two clients cannot compare theirs, and it opens nothing."""
    return digest(f"sid {session_key} {client_id}") if session_key else ""


async def add(store: Store, session_key: str, signed_in: SignedIn, now: int) -> None:
    """Note that a session has signed its user in to a client.  Without effect if that is known."""
    values, key = store.key_values, f"{session_key} {digest(signed_in.client_id)}"
    if await values.get(CLIENTS, key, now) is not None:
        return
    # The watch first: without one, a lapse would tell nobody.  If the session has ended meanwhile, it is due when both are stored.
    lapses = max(await session_end(store, session_key, now), now + _MARGIN)
    await values.put(*_watch(session_key, lapses, now))
    await values.put(CLIENTS, key, msgspec.json.encode(signed_in), now + _LIFE, _family(session_key))


async def end(store: Store, session_key: str) -> None:
    """Queue the notices of a session that has ended.  Without effect if it has no clients, or for those that another caller has queued."""
    values, now = store.key_values, store.key_values.now()
    for key, text in await values.list_family(CLIENTS, _family(session_key), now):
        await values.exchange(CLIENTS, key, now, [_record(Notice(msgspec.json.decode(text, type=SignedIn)), now, now)])


async def end_lapsed(store: Store, now: int, limit: int) -> int:
    """Look at ``limit`` sessions whose watches are due: queue the notices of those that have ended.  Returns how many were due."""
    due = await due_records(store, WATCH, now, limit)
    for key, _ in due:
        session_key = name_of(key)
        if lapses := await session_end(store, session_key, now):
            await store.key_values.exchange(WATCH, key, 0, [_watch(session_key, lapses, now)])
            continue
        await end(store, session_key)
        await store.key_values.pop(WATCH, key, 0)
    return len(due)


async def end_all_ended(store: Store, now: int) -> None:
    """Queue the notices of all sessions that have ended, whatever their watches say.  Reads the clients of all sessions."""
    for session_key in {key.partition(" ")[0] for key, _ in await store.key_values.list_all(CLIENTS, now)}:
        if not await session_end(store, session_key, now):
            await end(store, session_key)


async def due_notices(store: Store, now: int, limit: int) -> list[Notice]:
    """Return the notices that are due, the longest due first, at most ``limit``."""
    found = await due_records(store, NOTICE, now, limit)
    return [msgspec.structs.replace(msgspec.json.decode(text, type=Notice), key=key) for key, text in found]


async def postpone(store: Store, notice: Notice, pause: int, now: int, *, attempts: int) -> Notice | None:
    """Give a notice a later place, ``pause`` microseconds from now.  None if another process did so, or is done with it."""
    later = msgspec.structs.replace(notice, attempts=attempts)
    record = _record(later, now + pause, now)
    return msgspec.structs.replace(later, key=record.key) if await store.key_values.exchange(NOTICE, notice.key, 0, [record]) else None


async def remove(store: Store, notice: Notice) -> bool:
    """Remove a notice.  True for one caller."""
    return await store.key_values.pop(NOTICE, notice.key, 0) is not None


def _family(session_key: str) -> str:
    return f"clients of session {session_key}"


def _watch(session_key: str, at: int, now: int) -> KeyValueRecord:
    return KeyValueRecord(WATCH, due_key(at, session_key), b"", now + _LIFE)


def _record(notice: Notice, at: int, now: int) -> KeyValueRecord:
    key = due_key(at, notice.signed_in.sid)
    return KeyValueRecord(NOTICE, key, msgspec.json.encode(msgspec.structs.replace(notice, key="")), now + DAY)
