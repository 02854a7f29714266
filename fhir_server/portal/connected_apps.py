"""Connected apps: lists and ends the active token grants of the signed-in person."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_server.portal.context import PortalContext
from fhir_server.smart.accounts.users import User
from fhir_server.smart.authorize import sensitive_categories
from fhir_server.smart.authorize.scope_wording import describe_granted
from fhir_server.smart.clients import clients
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens

_ANY_RECORD = "All records you can open"
_NO_ACCESS = "A record that you can no longer open. The app cannot open it either"


@dataclass(frozen=True, slots=True)
class ConnectedApp:
    """An active token grant, as the page shows it.

    ``handle``    identifies the grant in forms
    ``scopes``    descriptions of the granted scopes
    ``withheld``  names of the sensitive categories that the person withholds from the app
    ``since``, ``renewed``  when the first and the newest token were issued (microseconds since 1970 UTC)
    """

    handle: str
    name: str
    record: str
    scopes: tuple[str, ...]
    withheld: tuple[str, ...]
    since: int
    renewed: int


async def list_connected(context: PortalContext, user: User, now: int) -> list[ConnectedApp]:
    """Return the person's active token grants, sorted by the client's name."""
    records = {choice.patient: choice.name for choice in await context.records(user, now)}
    apps = [await _app(context, user, grant, records) for grant in await grant_index.of_user(context.smart.store, user.username, now)]
    return sorted(apps, key=lambda app: (app.name, app.record, app.renewed))


async def end(context: PortalContext, user: User, handle: str, now: int) -> TokenGrant | None:
    """Revoke all tokens of the person's grant with this handle and return the grant; None if there is no such grant."""
    for grant in await grant_index.of_user(context.smart.store, user.username, now):
        if digest(grant.family) == handle:
            await context.smart.store.key_values.delete_family(grant.family)
            return grant
    return None


async def _app(context: PortalContext, user: User, grant: TokenGrant, records: dict[str, str]) -> ConnectedApp:
    client = await clients.find(context.smart.store, grant.client_id)
    scope = tokens.current_scope(client, grant) if client else ""
    record = records.get(grant.patient, _NO_ACCESS) if grant.patient else _ANY_RECORD
    scopes = describe_granted(resource_scopes(scope), user.role)
    withheld = sensitive_categories.describe(grant.withheld)
    name = client.name if client else grant.client_id
    return ConnectedApp(digest(grant.family), name, record, scopes, withheld, grant.since, grant.issued)
