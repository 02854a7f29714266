"""The pages a clinician opens apps from: her patients, and one patient's chart."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.portal import ehr_launch, page_handlers
from fhir_server.portal.ehr_launch import NoChartError
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.web.forms import NO_STORE

PATH: Final = "/ehr"
_STAFF: Final = "Patients' charts are opened from a clinician's account."
_NO_CHART: Final = "There is no such chart among those of your patients, or it cannot be opened that way."


class Charts:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self.smart = smart

    async def listing(self, request: Request, session: Session) -> Response:
        if session.user.role != "clinician":
            return page_handlers.failure_page(self.smart, _STAFF, 403, session)
        found = await ehr_launch.charts(self.smart, session.user)
        return page_handlers.page(self.smart, "ehr.html", session=session, charts=list(found.values()))

    async def chart(self, request: Request, session: Session) -> Response:
        if session.user.role != "clinician":
            return page_handlers.failure_page(self.smart, _STAFF, 403, session)
        try:
            found = await ehr_launch.chart(self.smart, session.user, request.path_params["patient"])
        except NoChartError:
            return page_handlers.failure_page(self.smart, _NO_CHART, 404, session)
        apps, visits = await ehr_launch.apps(self.smart), await ehr_launch.visits(self.smart, session.user, found.patient)
        # A form is held to these origins, and opening an app redirects to one of them.
        targets = [app.launch_uri for app in apps]
        return page_handlers.page(self.smart, "chart.html", targets=targets, session=session, chart=found, apps=apps, visits=visits)

    async def launch(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if session.user.role != "clinician":
            return page_handlers.failure_page(self.smart, _STAFF, 403, session)
        wanted = (form.get("patient", ""), form.get("app", ""), form.get("encounter", ""))
        try:
            url = await ehr_launch.launch(self.smart, session.user, *wanted)
        except NoChartError:
            return page_handlers.failure_page(self.smart, _NO_CHART, 404, session)
        await self.smart.record(SecurityEvent("open-app", True, session.user.username, wanted[1], about=patient_references(wanted[0])))
        # Not RedirectResponse, which re-quotes: a launch URI is used exactly as it was registered.
        return Response(None, 303, NO_STORE | {"Location": url, "Referrer-Policy": "no-referrer"})


def add_charts(routes: APIRouter, smart: SmartContext) -> None:
    """Add the pages under ``/ehr``."""
    charts = Charts(smart)
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, charts.listing), methods=["GET"])
    routes.add_api_route(PATH + "/{patient}", page_handlers.show_handler(smart, PATH, charts.chart), methods=["GET"])
    routes.add_api_route(PATH, page_handlers.form_handler(smart, PATH, charts.launch), methods=["POST"])
