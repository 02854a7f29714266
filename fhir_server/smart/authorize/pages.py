"""The pages of an authorization request: sign-in, record picker, visit picker, consent, signed-out.

Each page reads the stored request and the session again and checks them.  A form supplies only the user's choice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import OAuth2Error
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.background import BackgroundTask

from fhir_server.smart.accounts import cookies, identity_providers, known_devices, second_factor_pending, sessions, users
from fhir_server.smart.accounts.password_pages import add_password_pages
from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from fhir_server.smart.accounts.second_factor_pages import add_second_factor_pages, after_first_factor, return_path
from fhir_server.smart.accounts.users import MAX_NAME
from fhir_server.smart.authorize import consent_step, remembered_consents, requests
from fhir_server.smart.authorize.decisions import note_sign_in, record_decision
from fhir_server.smart.authorize.endpoint import add_authorization_endpoint
from fhir_server.smart.authorize.form_post import form_post_page
from fhir_server.smart.authorize.logout_pages import add_logout_pages
from fhir_server.smart.authorize.requests import RequestState, SignedInRequest
from fhir_server.smart.core.authlib import run_in_thread, to_authlib_request, to_http_response
from fhir_server.smart.core.context import MINUTE, SESSION_IDLE, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render, static
from fhir_server.smart.tokens import back_channel
from fhir_server.smart.tokens.server import OAuthServer
from fhir_server.web.forms import FORGED_FORM, NO_STORE, BadFormError, Form, address, read_form, with_headers

_EXPIRED = "This request has expired or was already answered. Go back to the app and start again."
_ANSWERED = (
    "You have already answered this request, or it has expired. Go back to the app. If it does not continue, start again there. "
    "The page Connected apps lists the access you have allowed. You can end it there."
)
_REFUSED = "The user name or password is wrong, or there were too many attempts. Check both, or try again in 15 minutes."
_CHOOSE = "Select one of the records in the list."
_CHOOSE_VISIT = "Select one of the visits, or no particular visit."
_TOO_MANY_SIGN_INS = "Too many sign-ins from your network. Wait a minute, then try again."
PER_ADDRESS = 120  # sign-ins a minute; a hospital ward or a family shares one address
_OLD_SIGN_IN = "The sign-in page was too old. Sign in again. If this message comes back, allow cookies for this site."
_SIGNED_IN = "You are signed in. The form was sent twice; the second time had no effect."
_HOME = ("Go to the start page", "/")
_CONNECTED_APPS = ("Connected apps", "/apps")
FormHandler = Callable[[Request, Form], Awaitable[Response]]


class AuthorizePages:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext, server: OAuthServer) -> None:
        self.smart = smart
        self.server = server
        self._sign_ins = RateLimit("sign-in", PER_ADDRESS, MINUTE)

    async def continue_request(self, request: Request) -> Response:
        """Redirect to the next page of the request."""
        state = await self._load(request)
        if state.authorization is None:
            return self._error(_EXPIRED)
        if state.session is None or not state.authorization.accepts_session(state.session):
            return _to("/sign-in", request=state.handle)
        return _to(state.authorization.next_page(state.session), request=state.handle)

    async def show_sign_in(self, request: Request) -> Response:
        return await self._sign_in_page(request, dict(request.query_params))

    async def sign_in(self, request: Request, form: Form) -> Response:
        values, now, device = dict(form), self.smart.now(), cookies.device_cookie(self.smart, request)
        client = address(request)
        if wait := await self._sign_ins.take(self.smart.store.key_values, client, now):  # every attempt costs a password hash
            return with_headers(self._error(_TOO_MANY_SIGN_INS, status=429), retry_after(wait))
        username = values.get("username", "")
        user = await check_password_sign_in(self.smart.store, username, values.get("password", ""), client, now, device)
        if user is None:
            known = await users.find(self.smart.store, username)
            await self.smart.record(SecurityEvent("sign-in", False, known.username if known else "", address=client))
            return await self._sign_in_page(request, values, _REFUSED, 400)
        await self.smart.record(SecurityEvent("sign-in", username=user.username, address=client, detail={"factor": "password"}))
        path = return_path(values.get("request", ""), values.get("next", ""))
        response = await after_first_factor(self.smart, request, user, path, ("pwd",))
        return cookies.with_device_cookie(self.smart, response, await known_devices.remember(self.smart.store, device, user.username, now))

    async def show_records(self, request: Request) -> Response:
        current = (await self._load(request)).signed_in
        return await self._records_page(current) if current else await self.continue_request(request)

    async def choose_record(self, request: Request, form: Form) -> Response:
        state = await self._load(request, form)
        current = state.signed_in
        if current is None:
            return self._sign_in_again(state)
        patient = dict(form).get("patient", "")
        if patient not in await requests.choices(self.smart, current.session):
            return await self._records_page(current, _CHOOSE)
        await requests.choose(self.smart, current.handle, current.authorization, current.session, patient)
        return _to("/oauth/continue", request=current.handle)

    async def show_visits(self, request: Request) -> Response:
        current = (await self._load(request)).signed_in
        if current is None or current.authorization.next_page(current.session) == requests.RECORD:
            return await self.continue_request(request)
        return await self._visits_page(current)

    async def choose_visit(self, request: Request, form: Form) -> Response:
        state = await self._load(request, form)
        current = state.signed_in
        if current is None:
            return self._sign_in_again(state)
        if current.authorization.next_page(current.session) == requests.RECORD:
            return self._error(_EXPIRED)
        encounter = dict(form).get("encounter")
        if encounter != "" and encounter not in await requests.encounters(self.smart, current.authorization, current.session):
            return await self._visits_page(current, _CHOOSE_VISIT)
        await requests.choose_encounter(self.smart, current.handle, current.authorization, encounter)
        return _to("/oauth/continue", request=current.handle)

    async def show_consent(self, request: Request) -> Response:
        current = (await self._load(request)).signed_in
        if (
            current is None
            or not current.authorization.accepts_session(current.session)
            or not current.authorization.is_record_chosen(current.session)
        ):
            return await self.continue_request(request)
        return await self._consent_page(current)

    async def decide(self, request: Request, form: Form) -> Response:
        """Answer the client: with a code if the user allows access, else with an error."""
        state = await self._load(request, form)
        if state.session is not None and state.authorization is None:
            return self._error(_ANSWERED, link=_CONNECTED_APPS)
        current = state.signed_in
        if current is None or not current.authorization.accepts_session(current.session):
            return self._sign_in_again(state)
        authorization, decision = current.authorization, None
        if dict(form).get("decision") == "allow":
            try:
                decision = await consent_step.build_decision(self.smart, authorization, current.session, form)
            except consent_step.UnclearAnswerError as error:
                return await self._consent_page(current, str(error), form)
        if not await requests.consume(self.smart, current.handle):
            return self._error(_ANSWERED, link=_CONNECTED_APPS)
        oauth_request = to_authlib_request(request, self.smart.origin, list(authorization.pairs))
        oauth_request.is_pushed = True  # or did not need to be: it was checked when it came
        await record_decision(self.smart, authorization, current.session, decision)
        response = await run_in_thread(self.server.authorization_response, oauth_request, decision)
        if decision is not None:
            await remembered_consents.remember(self.smart, authorization, current.session, decision)
            await note_sign_in(self.smart, current.session, decision)
        return form_post_page(self.smart, oauth_request, response) or to_http_response(response, {})

    async def sign_out(self, request: Request, form: Form) -> Response:
        session = await sessions.current(self.smart, self._cookie(request))
        if session is not None:
            await self.smart.record(SecurityEvent("sign-out", username=session.user.username))
        await sessions.end(self.smart, self._cookie(request))
        response = _to("/signed-out")
        if session is not None:
            response.background = BackgroundTask(back_channel.tell_clients, self.smart, session.user, session.key)
        response.delete_cookie(**cookies.session_cookie_attributes(self.smart))
        return response

    async def signed_out(self, request: Request) -> Response:
        return self._page("signed_out.html")

    async def reject_sign_in(self, request: Request, form: Form) -> Response:
        """Answer a sign-in form with a wrong token: sent twice, or open while the user signed in or out.  Offers a link."""
        values = dict(form)
        if not cookies.is_same_site(request):
            return self._error(FORGED_FORM, status=403, link=_HOME)
        target = {"request": values.get("request", ""), "next": values.get("next", "")}
        if await sessions.current(self.smart, self._cookie(request)) is None:
            return self._error(_OLD_SIGN_IN, status=403, link=("Sign in", f"/sign-in?{urlencode(target)}"))
        return self._error(_SIGNED_IN, status=403, link=("Continue", return_path(**target)))

    async def reject_sign_out(self, request: Request, form: Form) -> Response:
        """Answer a sign-out form with a wrong token.  A user who is signed out already gets the page for that."""
        cookie = self._cookie(request)
        active = await sessions.current(self.smart, cookie) or await second_factor_pending.find(self.smart, cookie)
        return _to("/signed-out") if not active and cookies.is_same_site(request) else await self._reject_form(request, form)

    def form_handler(self, handler: FormHandler, reject: FormHandler | None = None) -> Callable[[Request], Awaitable[Response]]:
        """Return a POST handler that passes on only forms rendered for this browser; ``reject`` answers all others."""

        async def guarded(request: Request) -> Response:
            try:
                form = await read_form(request)
            except BadFormError as error:
                return self._error(str(error))
            if not cookies.is_own_form(self.smart, request, dict(form).get("token", "")):
                return await (reject or self._reject_form)(request, form)
            return await handler(request, form)

        return guarded

    async def _sign_in_page(self, request: Request, form: dict[str, str], problem: str = "", status: int = 200) -> Response:
        cookie = self._cookie(request) or new_secret()
        values: dict[str, Any] = {"request": form.get("request", ""), "next": form.get("next", ""), "username": form.get("username", "")}
        authorization = await requests.find(self.smart, values["request"])
        if values["request"] and authorization is None:
            return self._error(_EXPIRED, link=_HOME)
        client = {"client_name": "", "client_host": ""}
        if authorization is not None:
            values["username"] = values["username"] or authorization.parameter("login_hint")[:MAX_NAME]
            client = await consent_step.requesting_client(self.smart, authorization)
        values |= {"lapsed": "lapsed" in form, "idle": SESSION_IDLE // MINUTE}
        values |= {"providers": await identity_providers.list_all(self.smart.store), "token": sessions.form_token(cookie)}
        page = self._page("sign_in.html", status, problem=problem, **values, **client)
        return page if self._cookie(request) else cookies.with_session_cookie(self.smart, page, cookie)

    async def _records_page(self, current: SignedInRequest, problem: str = "") -> Response:
        choices = list((await requests.choices(self.smart, current.session)).values())
        return await self._request_page("record.html" if choices else "no_record.html", current, problem, choices=choices)

    async def _visits_page(self, current: SignedInRequest, problem: str = "") -> Response:
        choices = list((await requests.encounters(self.smart, current.authorization, current.session)).values())
        return await self._request_page("visit.html", current, problem, choices=choices)

    async def _consent_page(self, current: SignedInRequest, problem: str = "", form: Form | None = None) -> Response:
        offer = await consent_step.consent_offer(self.smart, current.authorization, current.session)
        if current.authorization.needs_record(current.session) and offer["choice"] is None:
            return await self._records_page(current, _CHOOSE)
        selected = consent_step.selected_values(current.authorization, form)
        return await self._request_page("consent.html", current, problem, selected=selected, **offer)

    async def _request_page(self, name: str, current: SignedInRequest, problem: str, **view: Any) -> Response:
        """A page of an authorization request; its form may redirect to the client."""
        view |= await consent_step.requesting_client(self.smart, current.authorization)
        view |= {"handle": current.handle, "session": current.session, "problem": problem}
        return self._page(name, 400 if problem else 200, current.authorization.redirect_uri, **view)

    async def _load(self, request: Request, form: Form | None = None) -> RequestState:
        # A form names the request in a field, a page in its URL. The other one is ignored.
        handle = (dict(request.query_params) if form is None else dict(form)).get("request", "")
        session = await sessions.current(self.smart, self._cookie(request))
        return RequestState(handle, await requests.find(self.smart, handle), session)

    def _sign_in_again(self, state: RequestState) -> Response:
        """The answer to a form without an accepted session: the user signs in again and returns to the same request."""
        return self._error(_EXPIRED) if state.authorization is None else _to("/sign-in", request=state.handle, lapsed="yes")

    async def _reject_form(self, request: Request, form: Form) -> Response:
        return self._error(FORGED_FORM, status=403, link=_HOME)

    def _page(self, name: str, status: int = 200, redirect_uri: str = "", **view: Any) -> Response:
        return render(self.smart, name, status, redirect_uri, **view)

    def _error(self, text: str, error: OAuth2Error | None = None, status: int = 400, link: tuple[str, str] | None = None) -> Response:
        """An error page; ``link`` is (label, path)."""
        return self._page("error.html", status, text=text, detail=error.description if error else "", link=link)

    def _cookie(self, request: Request) -> str:
        return cookies.session_cookie(self.smart, request)


def _to(path: str, **query: str) -> RedirectResponse:
    return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303, headers=NO_STORE)


def add_pages(routes: APIRouter, smart: SmartContext, server: OAuthServer) -> None:
    """Add the pages' routes."""
    pages = AuthorizePages(smart, server)
    add_authorization_endpoint(routes, smart, server)
    routes.add_api_route("/oauth/continue", pages.continue_request, methods=["GET"])
    routes.add_api_route("/signed-out", pages.signed_out, methods=["GET"])
    routes.add_api_route("/sign-out", pages.form_handler(pages.sign_out, pages.reject_sign_out), methods=["POST"])
    routes.add_api_route("/sign-in", pages.show_sign_in, methods=["GET"])
    routes.add_api_route("/sign-in", pages.form_handler(pages.sign_in, pages.reject_sign_in), methods=["POST"])
    steps = {
        "/oauth/record": (pages.show_records, pages.choose_record),
        "/oauth/visit": (pages.show_visits, pages.choose_visit),
        "/oauth/consent": (pages.show_consent, pages.decide),
    }
    for path, (show, submit) in steps.items():
        routes.add_api_route(path, show, methods=["GET"])
        routes.add_api_route(path, pages.form_handler(submit), methods=["POST"])
    add_logout_pages(routes, smart)
    add_second_factor_pages(routes, smart)
    add_password_pages(routes, smart)
    routes.add_api_route("/static/{name}", static, methods=["GET"])
