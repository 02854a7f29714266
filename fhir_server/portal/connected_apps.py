"""Connected apps: what the signed-in person has granted to clients and has not ended."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_server.portal.context import PortalContext
from fhir_server.smart.accounts.users import User
from fhir_server.smart.authorize import sensitive_categories
from fhir_server.smart.authorize.scope_wording import describe_scope
from fhir_server.smart.clients import clients
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens

_ANY_RECORD = "Every record you may open"
_CLOSED = "A record that you can no longer open: the app sees nothing of it"


@dataclass(frozen=True, slots=True)
class App:
    """One standing grant.

    ``handle``    names it in forms
    ``withheld``  the kinds of information the person keeps from the app, in words
    ``since``, ``renewed``  when its first token was made, and its last (microseconds)
    """

    handle: str
    name: str
    record: str
    scopes: tuple[str, ...]
    withheld: tuple[str, ...]
    since: int
    renewed: int


async def connected(context: PortalContext, user: User, now: int) -> list[App]:
    """The person's standing grants, by the client's name."""
    records = {choice.patient: choice.name for choice in await context.records(user, now)}
    found = [await _app(context, user, grant, records) for grant in await _active(context, user, now)]
    return sorted(found, key=lambda app: (app.name, app.record, app.renewed))


async def end(context: PortalContext, user: User, handle: str, now: int) -> TokenGrant | None:
    """End a grant of this person's with every token it has, and say which it was; None if there is none of that handle."""
    for grant in await _active(context, user, now):
        if digest(grant.family) == handle:
            await context.smart.store.key_values.delete_family(grant.family)
            return grant
    return None


async def _active(context: PortalContext, user: User, now: int) -> list[TokenGrant]:
    return [grant for grant in await token_grants.active_grants(context.smart.store, now) if grant.username == user.username]


async def _app(context: PortalContext, user: User, grant: TokenGrant, records: dict[str, str]) -> App:
    client = await clients.find(context.smart.store, grant.client_id)
    scope = tokens.current_scope(client, grant) if client else ""
    record = records.get(grant.patient, _CLOSED) if grant.patient else _ANY_RECORD
    words = tuple(describe_scope(one, user.role) for one in resource_scopes(scope))
    kept = sensitive_categories.describe(grant.withheld)
    return App(digest(grant.family), client.name if client else grant.client_id, record, words, kept, grant.since, grant.issued)
