"""EHR launch for clinicians: lists visits and apps, and creates the ``launch`` parameter.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import records
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import EncounterChoice
from fhir_server.smart.tokens.launch import Launch, create_launch


class NoChartError(Exception):
    """The clinician may not open this patient's chart, or the visit or the app does not exist for it. The page does not say which."""


async def list_visits(smart: SmartContext, user: User, patient: str) -> Sequence[EncounterChoice]:
    """Return the patient's visits that are visible to this clinician, the newest first."""
    return await smart.encounters(user.person(), patient, frozenset(), smart.now())


async def list_apps(smart: SmartContext) -> list[Client]:
    """Return the apps that can be opened from a chart (those with a launch URI and the scope ``launch``), sorted by name.

    Only those that staff may use: approved ones, and if the setting lets staff decide, those that an operator registered.
    """
    if smart.staff_apps == "ask":
        known = [client for client in await clients.list_all(smart.store) if not client.registration_token_hash]
    else:
        known = []
    approved = [await clients.find(smart.store, approval.client_id) for approval in await staff_apps.list_all(smart.store)]
    standing = [app for app in approved if app is not None and await staff_apps.find(smart.store, app, smart.now()) is not None]
    apps = {app.client_id: app for app in (*known, *standing) if app.launch_uri and "launch" in app.scopes.split()}
    return sorted(apps.values(), key=lambda app: (app.name.casefold(), app.client_id))


async def launch(smart: SmartContext, user: User, patient: str, client_id: str, encounter: str = "") -> tuple[Client, str]:
    """Return the app, and the URL that opens it with this chart as context. Raises NoChartError.

    The ``launch`` parameter in it works once, for this client and this clinician.
    """
    if await records.find(smart, user.person(), patient) is None:
        raise NoChartError
    client = next((app for app in await list_apps(smart) if app.client_id == client_id), None)
    visible = {visit.encounter for visit in await list_visits(smart, user, patient)}
    if client is None or (encounter and encounter not in visible):
        raise NoChartError
    handle = await create_launch(smart.store, Launch(client.client_id, user.username, patient, encounter or None), smart.now())
    separator = "&" if "?" in client.launch_uri else "?"
    return client, client.launch_uri + separator + urlencode({"iss": smart.fhir_base, "launch": handle})
