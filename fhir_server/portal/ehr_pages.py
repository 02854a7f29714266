"""Pages from which clinicians open apps: the list of patients, and a patient's chart."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.errors import Problem
from fhir_server.portal import ehr_launch, page_handlers
from fhir_server.portal.context import PortalContext
from fhir_server.portal.ehr_launch import NoChartError
from fhir_server.smart.accounts import app_handover
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core import records
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent, patient_references

PATH: Final = "/ehr"
SEARCH: Final = "/ehr/search"  # no id of a Patient: the two routes are asked first
_MAX_TYPED: Final = 200
_STALE: Final = "This list has changed since. Go back to your patients and search again."
_CLINICIANS_ONLY: Final = "Only a clinician's account can open patients' charts."
_NO_CHART: Final = "This chart is not among those of your patients, or the app or visit is not available for it."


class ChartPages:
    """Handlers of the pages under ``/ehr``."""

    def __init__(self, context: PortalContext) -> None:
        self.context = context
        self.smart: SmartContext = context.smart

    async def show_list(self, request: Request, session: Session) -> Response:
        return await self._list(session, "", "")

    async def search(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        """The list for words that the clinician typed.  By POST: a name belongs in no URL, because URLs are logged."""
        return await self._list(session, " ".join(form.get("typed", "")[:_MAX_TYPED].split()), form.get("page", ""))

    async def _list(self, session: Session, typed: str, page: str) -> Response:
        if session.user.role != "clinician":
            return page_handlers.render_failure(self.smart, _CLINICIANS_ONLY, 403, session)
        try:
            found = await self.smart.charts.find(session.user.person(), session.user.subject, typed, page, self.smart.now())
        except Problem:
            return page_handlers.render_failure(self.smart, _STALE, 400, session)
        return page_handlers.render(self.smart, "ehr.html", session=session, charts=found.charts, next=found.next, typed=typed)

    async def show_chart(self, request: Request, session: Session) -> Response:
        if session.user.role != "clinician":
            return page_handlers.render_failure(self.smart, _CLINICIANS_ONLY, 403, session)
        chart = await records.find(self.smart, session.user.person(), request.path_params["patient"])
        if chart is None:
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


def add_charts(routes: APIRouter, context: PortalContext) -> None:
    """Add the pages under ``/ehr``."""
    pages, smart = ChartPages(context), context.smart
    routes.add_api_route(SEARCH, page_handlers.form_handler(smart, PATH, pages.search), methods=["POST"])
    routes.add_api_route(SEARCH, page_handlers.redirect_handler(PATH), methods=["GET"])
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, pages.show_list), methods=["GET"])
    routes.add_api_route(PATH + "/{patient}", page_handlers.show_handler(smart, PATH, pages.show_chart), methods=["GET"])
    routes.add_api_route(PATH, page_handlers.form_handler(smart, PATH, pages.launch), methods=["POST"])
