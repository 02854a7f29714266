"""Records of many people, planted for tests that count what is read for one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fhir_server.smart.core import grant_index, token_grants
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.store import KeyValueRecord, Store

LATER: Final = 2**62
OTHERS: Final = 20_000
_CHUNK: Final = 2_000
ASKED: Final[dict[str, Callable[[Store], Awaitable[object]]]] = {
    "grants of the person": lambda store: grant_index.of_user(store, "own", 0),
    "grants to the client": lambda store: grant_index.of_client(store, "own-app", 0),
    "sessions": lambda store: store.key_values.list_family("session", "user:own", 0),
    "recovery codes": lambda store: store.key_values.list_family("recovery-code", "second:own", 0),
}


def _of(person: str, client: str) -> list[KeyValueRecord]:
    grant = TokenGrant(client, "patient/*.rs", f"family of {person}", person, "p", issued=1, expires=LATER, since=1)
    return [
        *grant_index.records(grant),
        KeyValueRecord(token_grants.ACCESS, f"access {person}", b"{}", LATER, grant.family),
        KeyValueRecord("session", f"session {person}", b"{}", LATER, f"user:{person}"),
        KeyValueRecord("recovery-code", f"code {person}", b"", LATER, f"second:{person}"),
    ]


async def plant(store: Store, others: int) -> None:
    """Store the records of ``own``, and of so many other people."""
    people = [_of("own", "own-app"), *(_of(f"other{number}", "app") for number in range(others))]
    await grant_index.of_user(store, "nobody", 0)  # nothing of earlier versions is to be found later
    for start in range(0, len(people), _CHUNK):
        chunk = [record for records in people[start : start + _CHUNK] for record in records]
        await store.key_values.put("chunk", "", b"", LATER)
        assert await store.key_values.exchange("chunk", "", 0, chunk)
