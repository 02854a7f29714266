"""The identifier of a person for a client (``sub``, OpenID Connect Core 8).

Most clients get the account's own identifier.  A client that is registered for pairwise identifiers gets a random one that no
client of another sector gets, so that apps of different makers cannot compare their users.
"""

from __future__ import annotations

from typing import Final

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import digest, new_secret
from fhir_server.store import Store

_KIND: Final = "pairwise-subject"
_ACCOUNT: Final = "pairwise-account"  # the account's own identifier, by the pairwise one


async def subject(store: Store, client: Client, user: User) -> str:
    """The ``sub`` of this person for this client: the same at every sign-in, and never another person's."""
    if client.options.subject_type == "public":
        return user.subject
    key, made, family, values = digest(f"{client.sector} {user.subject}"), new_secret(), account_family(user), store.key_values
    if found := await values.get(_KIND, key, 0):
        return found.decode()
    await values.put(_ACCOUNT, digest(f"{client.sector} {made}"), user.subject.encode(), MAX_INSTANT, family)
    await values.put_if_absent(_KIND, key, made.encode(), MAX_INSTANT, family)
    return (await values.get(_KIND, key, 0) or made.encode()).decode()  # another request's, if it was faster


async def account_subject(store: Store, client: Client, sub: str) -> str:
    """The account's own identifier, by the one that this client knows; "" for one that the client never got."""
    if client.options.subject_type == "public":
        return sub
    return (await store.key_values.get(_ACCOUNT, digest(f"{client.sector} {sub}"), 0) or b"").decode()
