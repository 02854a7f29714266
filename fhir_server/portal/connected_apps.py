"""Connected apps: lists and ends the active token grants of the signed-in person."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_server.portal.context import PortalContext
from fhir_server.smart.accounts.users import User
from fhir_server.smart.authorize import sensitive_categories
from fhir_server.smart.authorize.scope_wording import describe_granted
from fhir_server.smart.clients import clients
from fhir_server.smart.core import grant_index, records
from fhir_server.smart.core.context import SmartContext, digest
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
    ``changed``   what the app is called now, if it has changed since the person allowed it (it has no access then); else ""
    """

    handle: str
    name: str
    record: str
    scopes: tuple[str, ...]
    withheld: tuple[str, ...]
    since: int
    renewed: int
    changed: str = ""


async def list_connected(context: PortalContext, user: User, now: int) -> list[ConnectedApp]:
    """Return the person's active token grants, sorted by the client's name."""
    grants = await active_grants(context.smart, user, now)
    found = [await records.find(context.smart, user.person(), patient) for patient in {grant.patient for grant in grants if grant.patient}]
    names = {choice.patient: choice.name for choice in found if choice is not None}
    apps = [await _app(context, user, grant, names) for grant in grants]
    return sorted(apps, key=lambda app: (app.name, app.record, app.renewed))


async def end(context: PortalContext, user: User, handle: str, now: int) -> TokenGrant | None:
    """Revoke all tokens of the person's grant with this handle and return the grant; None if there is no such grant."""
    for grant in await active_grants(context.smart, user, now):
        if digest(grant.family) == handle:
            await context.smart.store.key_values.delete_family(grant.family)
            return grant
    return None


async def end_all(smart: SmartContext, user: User, now: int) -> list[TokenGrant]:
    """Revoke all tokens of the person's grants.  Returns the grants."""
    ended = await active_grants(smart, user, now)
    for grant in ended:
        await smart.store.key_values.delete_family(grant.family)
    return ended


async def active_grants(smart: SmartContext, user: User, now: int) -> list[TokenGrant]:
    """The person's active token grants."""
    return list(await grant_index.of_user(smart.store, user.username, now))


async def names(smart: SmartContext, user: User, now: int) -> list[str]:
    """The names of the apps that have access for the person, sorted."""
    found = {grant.client_id for grant in await active_grants(smart, user, now)}
    registered = [(await clients.find(smart.store, client_id), client_id) for client_id in found]
    return sorted(client.name if client else client_id for client, client_id in registered)


async def _app(context: PortalContext, user: User, grant: TokenGrant, names: dict[str, str]) -> ConnectedApp:
    client = await clients.find(context.smart.store, grant.client_id)
    scope = tokens.current_scope(client, grant) if client else ""
    record = names.get(grant.patient, _NO_ACCESS) if grant.patient else _ANY_RECORD
    scopes = describe_granted(resource_scopes(scope), user.role)
    withheld = sensitive_categories.describe(grant.withheld)
    name = client.name if client else grant.client_id
    if client is None or client.is_as_allowed(grant.app, grant.since):
        return ConnectedApp(digest(grant.family), name, record, scopes, withheld, grant.since, grant.issued)
    known, now_called = grant.app[0] if grant.app else name, f"{name}, on {clients.shown_hosts(client.identity)}"
    return ConnectedApp(digest(grant.family), known, record, scopes, withheld, grant.since, grant.issued, now_called)
