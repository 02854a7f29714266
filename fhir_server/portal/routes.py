"""Routes and handlers of the start page, friends and family access, activation codes and connected apps."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from fhir_server.access.access_summary import describe_level
from fhir_server.access.resolver import PermissionResolver
from fhir_server.interactions.service import Service
from fhir_server.portal import activation_codes, connected_apps, page_handlers, sharing
from fhir_server.portal.account import add_account, describe_events
from fhir_server.portal.activation_codes import Invitation
from fhir_server.portal.contact import add_contact
from fhir_server.portal.context import NotYourRecordError, PortalContext
from fhir_server.portal.ehr_pages import add_charts
from fhir_server.portal.join import add_join
from fhir_server.portal.proxy_grants import ProxyGrant
from fhir_server.portal.record import add_record
from fhir_server.portal.record.reading import Ask
from fhir_server.portal.sharing import SharingFormError
from fhir_server.portal.wording import LEVELS, RELATIONSHIPS
from fhir_server.smart import demo
from fhir_server.smart.accounts import account_events, page_sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SmartContext, digest, new_secret
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind, patient_references
from fhir_server.web.dates import format_instant, format_instant_date

_TWICE = "This form was sent twice. The access was shared once: see the list below. If you did not see the code, make a new code."
_ENDED = "The access has ended. If that was a mistake, share access once more below."
_ENDED_APPS = {
    "yes": "The app's access has ended. If that was a mistake, connect the app again from the app.",
    "all": "The access of all apps has ended. To use an app again, connect it from the app.",
}
_WITHDRAWN = "The code no longer works. Nobody has used it. You can make a new code, or end the access."
_DONE = {"ended": _ENDED, "withdrawn": _WITHDRAWN, "changed": "The access level was changed. It applies from now on, also in apps."}
_NOT_CONNECTED = "This app is no longer connected."


class PortalPages:
    """Handlers of the pages."""

    def __init__(self, context: PortalContext) -> None:
        self.context = context
        self.smart = context.smart

    async def show_start(self, request: Request) -> Response:
        session = await page_handlers.current_session(self.smart, request)
        if session is None:
            return page_handlers.render(self.smart, "welcome.html", fhir_base=self.smart.fhir_base, apps=self._apps_to_try())
        now = self.smart.now()
        records = session.records or [("", record) for record in await self.context.records(session.user, now)]
        may_share = await self.context.may_share(session.user, now)
        events = await account_events.list_events(self.smart.store, session.user, now)
        changes = describe_events(account_events.changes_since_last_sign_in(events), self.smart.zone)
        view: dict[str, Any] = {"records": records, "may_share": may_share, "changes": changes, "apps": self._apps_to_try()}
        return page_handlers.render(self.smart, "start.html", session=session, **view)

    def _apps_to_try(self) -> tuple[tuple[str, str, str], ...]:
        return demo.APPS_TO_TRY if self.smart.is_demo else ()

    # friends and family access

    async def show_sharing(self, request: Request, session: Session) -> Response:
        query = request.query_params
        return await self._sharing_page(session, {}, done=next((words for what, words in _DONE.items() if what in query), ""))

    async def share(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        now = self.smart.now()
        try:
            sharing_request = sharing.parse_sharing_request(form, self.context.today(now))
            if not await self._is_first(session, form.get("once", ""), now):
                return await self._sharing_page(session, {}, SharingFormError(_TWICE))
            code, consent = await sharing.share(self.context, session.user, sharing_request, now)
        except SharingFormError as error:
            return await self._sharing_page(session, form, error)
        except NotYourRecordError:
            return self._not_yours_page(session)
        await self._record("share-record", session, f"Consent/{consent}", detail={"level": sharing_request.level})
        return self._code_page(session, code, sharing_request.name, now)

    async def renew_code(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        now = self.smart.now()
        try:
            code, grant = await sharing.renew_code(self.context, session.user, form.get("consent", ""), now)
        except SharingFormError as error:
            return await self._sharing_page(session, {}, error)
        except NotYourRecordError:
            return self._not_yours_page(session)
        await self._record("new-code", session, f"Consent/{grant.consent}")
        return self._code_page(session, code, grant.names[0], now)

    async def withdraw_code(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        consent = form.get("consent", "")
        try:
            await sharing.withdraw_code(self.context, session.user, consent, self.smart.now())
        except SharingFormError as error:
            return await self._sharing_page(session, {}, error)
        except NotYourRecordError:
            return self._not_yours_page(session)
        await self._record("new-code", session, f"Consent/{consent}", detail={"code": "withdrawn"})
        return page_handlers.redirect_to("/sharing", withdrawn="yes")

    async def change_level(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        consent, level = form.get("consent", ""), form.get("level", "")
        try:
            await sharing.change_level(self.context, session.user, consent, level, self.smart.now())
        except SharingFormError as error:
            return await self._sharing_page(session, {}, error)
        except NotYourRecordError:
            return self._not_yours_page(session)
        await self._record("share-record", session, f"Consent/{consent}", detail={"level": level, "changed": "level"})
        return page_handlers.redirect_to("/sharing", changed="yes")

    async def end_sharing(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        consent = form.get("consent", "")
        try:
            await sharing.end(self.context, session.user, consent, self.smart.now())
        except SharingFormError as error:
            return await self._sharing_page(session, {}, error)
        except NotYourRecordError:
            return self._not_yours_page(session)
        await self._record("end-sharing", session, f"Consent/{consent}")
        return page_handlers.redirect_to("/sharing", ended="yes")

    async def _sharing_page(
        self, session: Session, form: dict[str, str], error: SharingFormError | None = None, done: str = ""
    ) -> Response:
        now = self.smart.now()
        try:
            grants = await sharing.list_shared(self.context, session.user, now)
        except NotYourRecordError:
            return self._not_yours_page(session)
        return page_handlers.render(
            self.smart,
            "sharing.html",
            400 if error else 200,
            session=session,
            problem=str(error or ""),
            invalid_field=error.field if error else "",
            done=done,
            grants=[await self._entry(grant, now) for grant in grants],
            levels=[(code, name, describe_level(self.context.service.policy, code)) for code, name in LEVELS.items()],
            relationships=RELATIONSHIPS,
            today=self.context.today(now).isoformat(),
            once=new_secret(),
            form=form,
        )

    async def _entry(self, grant: ProxyGrant, now: int) -> dict[str, Any]:
        zone = self.smart.zone
        invitation = await activation_codes.find_invitation(self.smart.store.key_values, grant.persons[0])
        return {
            "consent": grant.consent,
            "names": ", ".join(grant.names),
            "levels": ", ".join(LEVELS[level] for level in grant.levels),
            "codes": grant.levels,
            "since": "" if grant.since is None else format_instant_date(grant.since, zone),
            "last": "" if grant.until is None else format_instant_date(grant.until - 1, zone),
            "code": activation_codes.code_state(invitation, now),
            "is_bound": invitation is not None and bool(invitation.taker),
            "has_birth_date": invitation is not None and bool(invitation.born),
            "taken_by": invitation.taken_by if invitation else "",
            "taken_on": format_instant(invitation.taken_at, zone) if invitation and invitation.taken_at else "",
        }

    async def _is_first(self, session: Session, once: str, now: int) -> bool:
        """Return whether this form was not sent before; a form that is sent twice must not share access twice."""
        key = digest(f"{session.token}:{once}")
        return bool(once) and await self.smart.store.key_values.put_if_absent("sent-form", key, b"", now + 60 * MINUTE)

    async def _record(self, kind: SecurityEventKind, session: Session, *about: str, detail: dict[str, str] | None = None) -> None:
        own = patient_references(session.user.patient)
        await self.smart.record(SecurityEvent(kind, username=session.user.username, about=(*own, *about), detail=detail or {}))

    def _code_page(self, session: Session, code: str, name: str, now: int) -> Response:
        until = format_instant_date(now + activation_codes.CODE_LIFE, self.smart.zone)
        return page_handlers.render(self.smart, "code.html", session=session, code=code, person=name, until=until)

    def _not_yours_page(self, session: Session) -> Response:
        return page_handlers.render(self.smart, "not_yours.html", 403, session=session)

    # activation codes

    async def show_accept(self, request: Request, session: Session) -> Response:
        return self._code_form(session, {})

    async def redeem(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        now = self.smart.now()
        try:
            born = sharing.parse_birth_date(form["born"], self.context.today(now)) if form.get("born") else None
        except SharingFormError as error:
            return self._code_form(session, form, str(error), error.field)
        try:
            user, invitation = await activation_codes.redeem(self.smart.store, session.user, form.get("code", ""), now, born)
        except activation_codes.CodeRefusedError as refused:
            earlier = await activation_codes.find_accepted(self.smart.store, session.user, form.get("code", ""))
            if earlier is not None:
                return await self._accepted_page(session, *earlier)
            await self.smart.record(SecurityEvent("use-code", False, session.user.username))
            return self._code_form(session, form, str(refused))
        about = (*patient_references(invitation.patient), f"Consent/{invitation.consent}", f"RelatedPerson/{invitation.related_person}")
        await self.smart.record(SecurityEvent("use-code", username=user.username, about=about))
        return await self._accepted_page(session, user, invitation)

    def _code_form(self, session: Session, form: dict[str, str], problem: str = "", invalid_field: str = "") -> Response:
        view = {"typed": form.get("code", ""), "problem": problem, "invalid_field": invalid_field}
        return page_handlers.render(self.smart, "accept.html", 400 if problem else 200, session=session, **view)

    async def _accepted_page(self, session: Session, user: User, invitation: Invitation) -> Response:
        """The session goes on as it is: a code proves nobody's identity."""
        session = await page_sessions.with_records(self.smart, session, user)
        choice = next((record for _, record in session.records if record.patient == invitation.patient), None)
        return page_handlers.render(self.smart, "accepted.html", session=session, choice=choice)

    # connected apps

    async def show_apps(self, request: Request, session: Session) -> Response:
        return await self._apps_page(session, done=_ENDED_APPS.get(request.query_params.get("ended", ""), ""))

    async def end_app(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        ended = await connected_apps.end(self.context, session.user, form.get("app", ""), self.smart.now())
        if ended is None:
            return await self._apps_page(session, _NOT_CONNECTED)
        await self.smart.record(
            SecurityEvent("end-app", True, session.user.username, ended.client_id, about=patient_references(ended.patient))
        )
        return page_handlers.redirect_to("/apps", ended="yes")

    async def end_all_apps(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        for ended in await connected_apps.end_all(self.smart, session.user, self.smart.now()):
            about = patient_references(ended.patient)
            await self.smart.record(SecurityEvent("end-app", True, session.user.username, ended.client_id, about=about))
        return page_handlers.redirect_to("/apps", ended="all")

    async def _apps_page(self, session: Session, problem: str = "", done: str = "") -> Response:
        apps = await connected_apps.list_connected(self.context, session.user, self.smart.now())
        zone = self.smart.zone
        listed = [(app, format_instant_date(app.since or app.renewed, zone), format_instant_date(app.renewed, zone)) for app in apps]
        return page_handlers.render(
            self.smart, "apps.html", 400 if problem else 200, session=session, problem=problem, done=done, apps=listed
        )


def router(smart: SmartContext, service: Service, ask: Ask) -> APIRouter:
    """Build the routes of all portal pages.  ``ask`` answers FHIR requests that pages make for people."""
    context = PortalContext(smart, service, PermissionResolver(service.policy, service.base))
    pages = PortalPages(context)
    routes = APIRouter(include_in_schema=False)
    routes.add_api_route("/", pages.show_start, methods=["GET"])
    routes.add_api_route("/portal.css", page_handlers.serve_style, methods=["GET"])
    for path, show in {"/sharing": pages.show_sharing, "/accept": pages.show_accept, "/apps": pages.show_apps}.items():
        routes.add_api_route(path, page_handlers.show_handler(smart, path, show), methods=["GET"])
    # URL of a form -> the page that shows the form, the handler
    forms = {
        "/sharing": ("/sharing", pages.share),
        "/sharing/code": ("/sharing", pages.renew_code),
        "/sharing/withdraw": ("/sharing", pages.withdraw_code),
        "/sharing/level": ("/sharing", pages.change_level),
        "/sharing/end": ("/sharing", pages.end_sharing),
        "/accept": ("/accept", pages.redeem),
        "/apps": ("/apps", pages.end_app),
        "/apps/all": ("/apps", pages.end_all_apps),
    }
    add_charts(routes, context)
    add_record(routes, context, ask)
    add_account(routes, smart)
    add_contact(routes, smart)
    add_join(routes, smart)
    for path, (page, handler) in forms.items():
        routes.add_api_route(path, page_handlers.form_handler(smart, page, handler), methods=["POST"])
        if path != page:
            routes.add_api_route(path, page_handlers.redirect_handler(page), methods=["GET"])
    return routes
