"""What a person (for a backend: the institution) granted to a client: the content of every code and token.

A grant names the account and does not copy it, so that a changed or closed account takes effect at the next request.
All codes and tokens that come from one decision are one *family* and are revoked together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from fhir_server.store import Store

ACCESS: Final = "access"
REFRESH: Final = "refresh"
CODE: Final = "code"
SPENT_CODE: Final = "spent-code"  # client and family of a code that was used
SPENT_REFRESH: Final = "spent-refresh"  # the same of a refresh token
SUCCESSOR: Final = "successor"  # the tokens that replaced a refresh token, encrypted with it, for some seconds
SESSION: Final = "session"
_KINDS: Final = (REFRESH, ACCESS, CODE)  # the refresh token first: it has the scopes of the whole grant


class TokenGrant(msgspec.Struct, frozen=True):
    """A grant, as stored with each code or token.

    ``patient``, ``encounter``  ids in context
    ``fhir_user``  ``Type/id`` of the resource that represents the person
    ``launch``     further launch parameters of the token response (``need_patient_banner``, ``intent``)
    ``withheld``   sensitivity labels that the person withholds from this app
    ``session``    the sign-in session that the grant ends with; "" for none
    ``issued``, ``expires``  of this code or token, in microseconds
    ``since``      when the family's first token was issued, in microseconds
    ``generation``  the account's, when the person decided
    ``auth_time``, ``amr``  when (in seconds) and how the person had signed in; 0 and () for grants of an earlier version
    ``sid``        the session for this client (OpenID Connect logout); "" for none
    ``jkt``        thumbprint of the key that the token is bound to (DPoP); "" for a bearer token
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
    generation: int = 0
    auth_time: int = 0
    amr: tuple[str, ...] = ()
    sid: str = ""
    jkt: str = ""

    def context(self) -> dict[str, Any]:
        """The launch parameters of the token response (SMART App Launch, "Launch context")."""
        ids = {"patient": self.patient, "encounter": self.encounter}
        return {name: id for name, id in ids.items() if id} | self.launch


def with_scope(grant: TokenGrant, scope: str) -> TokenGrant:
    """The grant with these scopes in place of its own."""
    return msgspec.structs.replace(grant, scope=scope)


async def find(store: Store, kind: str, key: str, now: int) -> TokenGrant | None:
    """The grant of a code or token that has not expired, by the digest of its text."""
    text = await store.key_values.get(kind, key, now)
    return None if text is None else msgspec.json.decode(text, type=TokenGrant)


async def active_grants(store: Store, now: int) -> tuple[TokenGrant, ...]:
    """One grant for each family that is still usable, as the page of connected apps lists them."""
    families: dict[str, TokenGrant] = {}
    for kind in _KINDS:
        for _, text in await store.key_values.list_all(kind, now):
            token_grant = msgspec.json.decode(text, type=TokenGrant)
            if kind == REFRESH and token_grant.session and await store.key_values.get(SESSION, token_grant.session, now) is None:
                continue  # the session ended, and the grant with it
            families.setdefault(token_grant.family, token_grant)
    return tuple(families.values())


async def revoke_where(store: Store, which: Callable[[TokenGrant], bool], now: int) -> None:
    """Revoke every family for whose grant ``which`` is true."""
    for token_grant in await active_grants(store, now):
        if which(token_grant):
            await store.key_values.delete_family(token_grant.family)
