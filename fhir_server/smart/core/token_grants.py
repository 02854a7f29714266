"""What a person (for a backend: the institution) granted to a client: the content of every code and token.

A grant names the account and does not copy it, so that a changed or closed account takes effect at the next request.
All codes and tokens that come from one decision are one *family* and are revoked together.
"""

from __future__ import annotations

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
SESSION_SEEN: Final = "session-seen"  # expires when the session lapses for lack of use; its value is that instant
# In the order in which a grant gets them, so that one that is being exchanged is always found.  The last one found has the scopes of
# the whole grant.
_KINDS: Final = (CODE, ACCESS, REFRESH)


class TokenGrant(msgspec.Struct, frozen=True):
    """A grant, as stored with each code or token.

    ``patient``, ``encounter``  ids in context
    ``fhir_user``  ``Type/id`` of the resource that represents the person
    ``launch``     further launch parameters of the token response (``need_patient_banner``, ``intent``)
    ``withheld``   sensitivity labels that the person withholds from this app
    ``session``    the key of the sign-in session that the grant ends with; "" for none
    ``issued``, ``expires``  of this code or token, in microseconds
    ``since``      when the family's first token was issued, in microseconds
    ``generation``  the account's, when the person decided
    ``app``        by what the person knew the app (``Client.identity``); empty for a backend, and in a grant of an earlier version
    ``approval``   the institution's approval of the app for staff, under which this was given; "" for none
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
    app: tuple[str, ...] = ()
    approval: str = ""
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


async def session_end(store: Store, key: str, now: int) -> int:
    """When the sign-in session of this key lapses unless it is used again, in microseconds; 0 if it has ended."""
    seen = await store.key_values.get(SESSION_SEEN, key, now)
    if seen is None or await store.key_values.get(SESSION, key, now) is None:
        return 0
    return int(seen or now)  # without a value, it was stored by an earlier version: it lasts for now


async def active_grants(store: Store, now: int) -> tuple[TokenGrant, ...]:
    """One grant for each family that is still usable, of all persons and clients: reads all tokens.

    What concerns one person or client asks :mod:`~fhir_server.smart.core.grant_index`.
    """
    families: dict[str, TokenGrant] = {}
    for kind in _KINDS:
        for _, text in await store.key_values.list_all(kind, now):
            token_grant = msgspec.json.decode(text, type=TokenGrant)
            if token_grant.session and not await session_end(store, token_grant.session, now):
                continue  # the session ended, and the grant with it
            families[token_grant.family] = token_grant
    return tuple(families.values())
