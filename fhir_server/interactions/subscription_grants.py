"""Whether a caller has the grant with which a Subscription was made, on which its notifications rest.

Another grant of the same person to the same app may be narrower: other scopes, other labels withheld.
"""

from __future__ import annotations

from fhir_server.errors import Problem
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_records import Stored
from fhir_server.smart.tokens import lasting
from fhir_server.smart.tokens.tokens import Principal


async def require_grant(stored: Stored, caller: Principal, service: Service, now: int) -> None:
    """Require that the caller has what the Subscription's grant has at ``now`` (microseconds).  Raises Problem ``forbidden``."""
    grant = stored.subscription.grant
    subscriber = await lasting.resolve_lasting(service.store, grant, now)
    if subscriber is None:
        raise Problem("forbidden", "The access with which the Subscription was made has ended. Delete it and make a new one.")
    is_of_grant = grant.username is None or grant.family == caller.family
    if not is_of_grant or not {scope.text for scope in subscriber.scopes} <= {scope.text for scope in caller.scopes}:
        text = "The Subscription was made with another grant or more scopes than this token's. It can be set to off, or deleted."
        raise Problem("forbidden", text)
