"""What a person (or, for a backend, the institution) has granted to a client: the content of every code and token.

A record names the account and never copies it, so that a changed or closed account counts at the next request.
Codes and tokens that come from one decision are one *family* and end together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fhir_server.store import Store

ACCESS: Final = "access"
REFRESH: Final = "refresh"
CODE: Final = "code"
SESSION: Final = "session"
_KINDS: Final = (REFRESH, ACCESS, CODE)  # the refresh token first: it stands for the whole grant


class TokenGrant(msgspec.Struct, frozen=True):
    """``launch`` holds further launch parameters as the token response states them (``need_patient_banner``, ``intent``).

    ``withheld`` are the sensitivity labels the person keeps from this app; ``session`` is the sign-in that the grant ends
    with ("" for none).  ``issued`` and ``expires`` are those of the code or token that this record belongs to, in
    microseconds; ``since`` is when the family's first token was made.
    """

    client_id: str
    scope: str
    family: str
    username: str | None = None
    patient: str | None = None
    encounter: str | None = None
    fhir_user: str | None = None
    launch: dict[str, Any] = {}
    withheld: tuple[str, ...] = ()
    session: str = ""
    issued: int = 0
    expires: int = 0
    since: int = 0

    def context(self) -> dict[str, Any]:
        """The launch parameters, as members beside an access token (SMART App Launch, "Launch context")."""
        ids = {"patient": self.patient, "encounter": self.encounter}
        return {name: id for name, id in ids.items() if id} | self.launch


async def find(store: Store, kind: str, key: str, now: int) -> TokenGrant | None:
    """The record of a live code or token, by the digest of its text."""
    text = await store.key_values.get(kind, key, now)
    return None if text is None else msgspec.json.decode(text, type=TokenGrant)


async def active_grants(store: Store, now: int) -> tuple[TokenGrant, ...]:
    """One record a family that can still be used: what "connected apps" lists."""
    families: dict[str, TokenGrant] = {}
    for kind in _KINDS:
        for _, text in await store.key_values.list_all(kind, now):
            token_grant = msgspec.json.decode(text, type=TokenGrant)
            if kind == REFRESH and token_grant.session and await store.key_values.get(SESSION, token_grant.session, now) is None:
                continue  # it went with the sign-in
            families.setdefault(token_grant.family, token_grant)
    return tuple(families.values())


async def revoke_where(store: Store, which: Callable[[TokenGrant], bool], now: int) -> None:
    """End every family whose grant answers to ``which``."""
    for token_grant in await active_grants(store, now):
        if which(token_grant):
            await store.key_values.delete_family(token_grant.family)
