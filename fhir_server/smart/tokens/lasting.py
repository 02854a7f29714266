"""The caller for whom the server acts later without a token, such as the subscriber of a Subscription.

The grant is kept as it was when the caller asked.  Whatever ends the access of its tokens ends this, too: the grant's revocation and
its last token's expiry, the end of the account, of the session, of the client's registration or of an approval.  A backend has no
grant but its registration; its tokens last minutes.
"""

from __future__ import annotations

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core import grant_index, token_grants
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.token_grants import ACCESS, TokenGrant
from fhir_server.smart.tokens.tokens import Principal, principal_of
from fhir_server.store import Store


async def grant_of(store: Store, authorization: str, now: int) -> TokenGrant | None:
    """The grant of the access token in an ``Authorization`` header, which has been checked."""
    return await token_grants.find(store, ACCESS, digest(authorization.partition(" ")[2]), now)


async def resolve_lasting(store: Store, grant: TokenGrant, now: int) -> Principal | None:
    """The caller whom a kept grant identifies at ``now`` (microseconds); None if its access has ended."""
    expires = await grant_index.end_of(store, grant, now) if grant.username else MAX_INSTANT
    return await principal_of(store, msgspec.structs.replace(grant, expires=expires), now)
