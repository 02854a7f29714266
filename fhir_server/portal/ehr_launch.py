"""The clinician's side of an EHR launch: whose charts, which visit, which apps, and the handle that an app is opened with.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import EncounterChoice, RecordChoice
from fhir_server.smart.tokens.launch import Launch, create_launch


class NoChartError(Exception):
    """Not a patient whose chart this clinician may open, nor a visit or an app that goes with it: all one to her."""


async def charts(smart: SmartContext, user: User) -> dict[str, RecordChoice]:
    """The patients under this clinician's care, by id."""
    return {choice.patient: choice for choice in await smart.records(user.person(), smart.now())}


async def chart(smart: SmartContext, user: User, patient: str) -> RecordChoice:
    """Raises NoChart."""
    found = (await charts(smart, user)).get(patient)
    if found is None:
        raise NoChartError
    return found


async def visits(smart: SmartContext, user: User, patient: str) -> Sequence[EncounterChoice]:
    """The visits of this patient that this clinician sees, the latest first."""
    return await smart.encounters(user.person(), patient, frozenset(), smart.now())


async def apps(smart: SmartContext) -> list[Client]:
    """The apps that can be opened on a chart, by name."""
    found = [one for one in await clients.list_all(smart.store) if one.launch_uri and "launch" in one.scopes.split()]
    return sorted(found, key=lambda one: (one.name.casefold(), one.client_id))


async def launch(smart: SmartContext, user: User, patient: str, client_id: str, encounter: str = "") -> str:
    """The address that opens this app on this chart; its handle is this app's and this clinician's, for one use.  Raises NoChart."""
    await chart(smart, user, patient)
    client = next((one for one in await apps(smart) if one.client_id == client_id), None)
    seen = {one.encounter for one in await visits(smart, user, patient)}
    if client is None or (encounter and encounter not in seen):
        raise NoChartError
    handle = await create_launch(smart.store, Launch(client.client_id, user.username, patient, encounter or None), smart.now())
    joint = "&" if "?" in client.launch_uri else "?"
    return client.launch_uri + joint + urlencode({"iss": smart.fhir_base, "launch": handle})
