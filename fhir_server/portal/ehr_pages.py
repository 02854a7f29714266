"""Pages from which clinicians open apps: the list of patients, and a patient's chart."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.portal import ehr_launch, page_handlers
from fhir_server.portal.ehr_launch import NoChartError
from fhir_server.smart.accounts import app_handover
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent, patient_references

PATH: Final = "/ehr"
_CLINICIANS_ONLY: Final = "Only a clinician's account can open patients' charts."
_NO_CHART: Final = "This chart is not among those of your patients, or the app or visit is not available for it."


class ChartPages:
    """Handlers of the pages under ``/ehr``."""

    def __init__(self, smart: SmartContext) -> None:
        self.smart = smart

    async def show_list(self, request: Request, session: Session) -> Response:
        if session.user.role != "clinician":
            return page_handlers.render_failure(self.smart, _CLINICIANS_ONLY, 403, session)
        charts = await ehr_launch.list_charts(self.smart, session.user)
        return page_handlers.render(self.smart, "ehr.html", session=session, charts=list(charts.values()))

    async def show_chart(self, request: Request, session: Session) -> Response:
        if session.user.role != "clinician":
            return page_handlers.render_failure(self.smart, _CLINICIANS_ONLY, 403, session)
        try:
            chart = await ehr_launch.find_chart(self.smart, session.user, request.path_params["patient"])
        except NoChartError:
            return page_handlers.render_failure(self.smart, _NO_CHART, 404, session)
        apps, visits = await ehr_launch.list_apps(self.smart), await ehr_launch.list_visits(self.smart, session.user, chart.patient)
        return page_handlers.render(self.smart, "chart.html", session=session, chart=chart, apps=apps, visits=visits)

    async def launch(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if session.user.role != "clinician":
            return page_handlers.render_failure(self.smart, _CLINICIANS_ONLY, 403, session)
        patient, client_id, encounter = (form.get(name, "") for name in ("patient", "app", "encounter"))
        try:
            client, url = await ehr_launch.launch(self.smart, session.user, patient, client_id, encounter)
        except NoChartError:
            return page_handlers.render_failure(self.smart, _NO_CHART, 404, session)
        await self.smart.record(SecurityEvent("open-app", True, session.user.username, client_id, about=patient_references(patient)))
        return await app_handover.hand_over(self.smart, request, url, client.name)


def add_charts(routes: APIRouter, smart: SmartContext) -> None:
    """Add the pages under ``/ehr``."""
    pages = ChartPages(smart)
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, pages.show_list), methods=["GET"])
    routes.add_api_route(PATH + "/{patient}", page_handlers.show_handler(smart, PATH, pages.show_chart), methods=["GET"])
    routes.add_api_route(PATH, page_handlers.form_handler(smart, PATH, pages.launch), methods=["POST"])
