"""The pages of an authorization request: sign-in, record picker, visit picker, consent, signed-out.

Each page reads the stored request and the session again and checks them.  A form supplies only the user's choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from authlib.oauth2.rfc6749 import OAuth2Error
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.errors import Problem
from fhir_server.smart.accounts import (
    app_handover,
    cookies,
    identity_providers,
    password_sign_in,
    sessions,
    users,
)
from fhir_server.smart.accounts.password_pages import add_password_pages
from fhir_server.smart.accounts.second_factor_pages import add_second_factor_pages, after_first_factor, return_path
from fhir_server.smart.accounts.sign_in_rate import SignInRate, in_words
from fhir_server.smart.accounts.users import MAX_NAME
from fhir_server.smart.authorize import consent_state, consent_step, requests, sign_out_pages, staff_step, texts
from fhir_server.smart.authorize.consent_state import ConsentState
from fhir_server.smart.authorize.decisions import keep_decision, record_decision
from fhir_server.smart.authorize.endpoint import add_authorization_endpoint
from fhir_server.smart.authorize.form_post import form_post_page
from fhir_server.smart.authorize.logout_pages import add_logout_pages
from fhir_server.smart.authorize.requests import AuthorizationRequest, RequestState, SignedInRequest
from fhir_server.smart.authorize.sign_out_pages import SignOutPages
from fhir_server.smart.authorize.staff_step import Admission
from fhir_server.smart.core import records
from fhir_server.smart.core.authlib import run_in_thread, to_authlib_request, to_http_response
from fhir_server.smart.core.context import MINUTE, SESSION_IDLE, SmartContext, digest, new_secret
from fhir_server.smart.core.rate_limits import retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render, static
from fhir_server.smart.tokens.grants import Decision
from fhir_server.smart.tokens.server import OAuthServer
from fhir_server.web.forms import FORGED_FORM, NO_STORE, BadFormError, Form, address, read_form, with_headers

RECORD_SEARCH: Final = "/oauth/record/search"
_MAX_TYPED: Final = 200
FormHandler = Callable[[Request, Form], Awaitable[Response]]


class AuthorizePages:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext, server: OAuthServer) -> None:
        self.smart = smart
        self.server = server
        self.sign_outs = SignOutPages(smart)
        self._sign_ins = SignInRate(smart)

    async def continue_request(self, request: Request) -> Response:
        """Redirect to the next page of the request."""
        state = await self._load(request)
        if state.authorization is None:
            return self._error(texts.EXPIRED)
        if state.session is None or not state.authorization.accepts_session(state.session):
            return _to("/sign-in", request=state.handle)
        await requests.keep(self.smart, state.handle)
        current = SignedInRequest(state.handle, state.authorization, state.session)
        if not (await staff_step.admit(self.smart, current)).is_admitted:
            return await self._refuse_for_staff(current)
        return _to(state.authorization.next_page(state.session), request=state.handle)

    async def show_sign_in(self, request: Request) -> Response:
        return await self._sign_in_page(request, dict(request.query_params))

    async def sign_in(self, request: Request, form: Form) -> Response:
        values, now, device = dict(form), self.smart.now(), cookies.device_cookie(self.smart, request)
        client, username = address(request), values.get("username", "")
        if wait := await self._sign_ins.take(device, username, client, now):
            return with_headers(self._error(texts.TOO_MANY_SIGN_INS, status=429), retry_after(wait))
        browser = digest(self._cookie(request))
        tried = await password_sign_in.attempt(self.smart.store, username, values.get("password", ""), client, now, device, browser)
        user = tried.user
        if user is None:
            known = await users.find(self.smart.store, username)
            await self.smart.record(SecurityEvent("sign-in", False, known.username if known else "", address=client))
            if not tried.wait:
                return await self._sign_in_page(request, values, texts.REFUSED, 400)
            page = await self._sign_in_page(request, values, texts.WAIT.format(wait=in_words(tried.wait)), 429)
            return with_headers(page, retry_after(tried.wait))
        await self.smart.record(SecurityEvent("sign-in", username=user.username, address=client, detail={"factor": "password"}))
        await requests.keep(self.smart, values.get("request", ""))
        path = return_path(values.get("request", ""), values.get("next", ""))
        return await after_first_factor(self.smart, request, user, path, self.smart.now(), ("pwd",))

    async def show_records(self, request: Request) -> Response:
        current = (await self._load(request)).signed_in
        return await self._records_page(current) if current else await self.continue_request(request)

    async def choose_record(self, request: Request, form: Form) -> Response:
        state = await self._load(request, form)
        current = state.signed_in
        if current is None:
            return self._sign_in_again(state)
        patient = dict(form).get("patient", "")
        if await records.find(self.smart, current.session.user.person(), patient) is None:
            return await self._records_page(current, texts.CHOOSE)
        await requests.choose(self.smart, current.handle, current.authorization, current.session, patient)
        return _to("/oauth/continue", request=current.handle)

    async def search_records(self, request: Request, form: Form) -> Response:
        """The record picker for words that a clinician typed.  By POST: a name belongs in no URL, because URLs are logged."""
        state = await self._load(request, form)
        if state.signed_in is None:
            return self._sign_in_again(state)
        values = dict(form)
        typed = " ".join(values.get("typed", "")[:_MAX_TYPED].split())
        return await self._records_page(state.signed_in, typed=typed, page=values.get("page", ""))

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
            return self._error(texts.EXPIRED)
        encounter = dict(form).get("encounter")
        if encounter != "" and encounter not in await requests.encounters(self.smart, current.authorization, current.session):
            return await self._visits_page(current, texts.CHOOSE_VISIT)
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
        admission = await staff_step.admit(self.smart, current)
        if not admission.is_admitted:
            return await self._refuse_for_staff(current)
        return await (self._consent_page(admission) if admission.is_asked else self._allowed(request, admission))

    async def decide(self, request: Request, form: Form) -> Response:
        """Answer the client: with a code if the user allows access, else with an error."""
        loaded = await self._load(request, form)
        if loaded.session is not None and loaded.authorization is None:
            return self._error(texts.ANSWERED, link=texts.CONNECTED_APPS)
        current = loaded.signed_in
        if current is None or not current.authorization.accepts_session(current.session):
            return self._sign_in_again(loaded)
        admission = await staff_step.admit(self.smart, current)
        if not admission.is_admitted:
            return await self._refuse_for_staff(current)
        if dict(form).get("decision") == "allow":
            return await self._allowed(request, admission, form)
        return await self._decided(request, current)

    async def _allowed(self, request: Request, admission: Admission, form: Form | None = None) -> Response:
        """Answer the client with a code: the person allowed it by ``form``, or the institution approved it for staff (None)."""
        current = admission.request
        state = await consent_state.read(self.smart, current.authorization, current.session)
        try:
            decision = await consent_step.build_decision(self.smart, state, [("shown", state.shown)] if form is None else form)
        except consent_step.UnclearAnswerError as error:
            return await self._consent_page(admission, str(error), form)
        if decision is not None:
            token_grant = msgspec.structs.replace(decision.token_grant, approval=admission.approval)
            decision = dataclasses.replace(decision, token_grant=token_grant)
        return await self._decided(request, current, state, decision)

    async def _refuse_for_staff(self, current: SignedInRequest) -> Response:
        """The page for a member of staff whose institution has not approved the app."""
        authorization, username = current.authorization, current.session.user.username
        if await requests.consume(self.smart, current.handle):
            detail = {"reason": "not approved for staff", "scope": authorization.scope}
            await self.smart.record(SecurityEvent("allow-app", False, username, authorization.client_id, "", (), detail))
        client = await consent_step.requesting_client(self.smart, authorization)
        text = texts.NOT_FOR_STAFF.format(client=client["client_name"], organization=self.smart.organization)
        return self._error(text, status=403, link=texts.HOME)

    async def _decided(
        self, request: Request, current: SignedInRequest, state: ConsentState | None = None, decision: Decision | None = None
    ) -> Response:
        """Answer the client once, and record it.  Without a decision, access is denied."""
        authorization = current.authorization
        if not await requests.consume(self.smart, current.handle):
            return self._error(texts.ANSWERED, link=texts.CONNECTED_APPS)
        await record_decision(self.smart, authorization, current.session, decision)
        if decision and state:
            await keep_decision(self.smart, state, decision)
        return await self._answer(request, authorization, decision)

    async def cancel(self, request: Request, form: Form) -> Response:
        """Lead back to the app with ``access_denied``, from a page before consent: sign-in, second factor, record or visit."""
        loaded = await self._load(request, form)
        if loaded.authorization is None or not await requests.consume(self.smart, loaded.handle):
            return self._error(texts.ANSWERED, link=texts.HOME)
        username = loaded.session.user.username if loaded.session else ""
        detail = {"error": "access_denied", "cause": "canceled before consent"}
        event = SecurityEvent("allow-app", False, username, loaded.authorization.client_id, address(request), detail=detail)
        await self.smart.record(event)
        return await self._answer(request, loaded.authorization, None)

    async def _answer(self, request: Request, authorization: AuthorizationRequest, decision: Decision | None) -> Response:
        """Lead the browser to the app, with a code or with ``access_denied``."""
        oauth_request = to_authlib_request(request, self.smart.origin, list(authorization.pairs))
        oauth_request.is_pushed = True  # or did not need to be: it was checked when it came
        response = await run_in_thread(self.server.authorization_response, oauth_request, decision)
        if page := form_post_page(self.smart, oauth_request, response):
            return page
        if not response.location:
            return to_http_response(response, {})
        client = await consent_step.requesting_client(self.smart, authorization)
        return await app_handover.hand_over(self.smart, request, response.location, client["client_name"])

    async def reject_sign_in(self, request: Request, form: Form) -> Response:
        """Answer a sign-in form with a wrong token: sent twice, or open while the user signed in or out.  Offers a link."""
        values = dict(form)
        if not cookies.is_same_site(request):
            return self._error(FORGED_FORM, status=403, link=texts.HOME)
        target = {"request": values.get("request", ""), "next": values.get("next", "")}
        if await sessions.current(self.smart, self._cookie(request)) is None:
            return self._error(texts.OLD_SIGN_IN, status=403, link=("Sign in", f"/sign-in?{urlencode(target)}"))
        return self._error(texts.SIGNED_IN, status=403, link=("Continue", return_path(**target)))

    async def reject_sign_out(self, request: Request, form: Form) -> Response:
        """Answer a sign-out form with a wrong token.  A user who is signed out already gets the page for that."""
        is_out = cookies.is_same_site(request) and await self.sign_outs.already_signed_out(request)
        return _to(sign_out_pages.PATH) if is_out else await self._reject_form(request, form)

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
            return self._error(texts.EXPIRED, link=texts.HOME)
        client = {"client_name": "", "client_host": ""}
        if authorization is not None:
            values["username"] = values["username"] or authorization.parameter("login_hint")[:MAX_NAME]
            client = await consent_step.requesting_client(self.smart, authorization)
        values |= {"lapsed": "lapsed" in form, "idle": SESSION_IDLE // MINUTE}
        values |= {"providers": await identity_providers.list_all(self.smart.store), "token": sessions.form_token(cookie)}
        page = self._page("sign_in.html", status, problem=problem, **values, **client)
        return page if self._cookie(request) else cookies.with_session_cookie(self.smart, page, cookie)

    async def _records_page(self, current: SignedInRequest, problem: str = "", typed: str = "", page: str = "") -> Response:
        user = current.session.user
        if not records.are_searched(user.person()):
            choices = list((await requests.choices(self.smart, current.session)).values())
            view: dict[str, Any] = {"choices": choices, "next": "", "typed": "", "is_searched": False}
            return await self._request_page("record.html" if choices else "no_record.html", current, problem, **view)
        try:
            found = await self.smart.charts.find(user.person(), user.subject, typed, page, self.smart.now())
        except Problem:
            return self._error(texts.STALE_LIST)
        view = {"choices": found.charts, "next": found.next, "typed": typed, "is_searched": True}
        return await self._request_page("record.html" if found.charts or typed else "no_record.html", current, problem, **view)

    async def _visits_page(self, current: SignedInRequest, problem: str = "") -> Response:
        choices = list((await requests.encounters(self.smart, current.authorization, current.session)).values())
        return await self._request_page("visit.html", current, problem, choices=choices)

    async def _consent_page(self, admission: Admission, problem: str = "", form: Form | None = None) -> Response:
        current = admission.request
        offer = await consent_step.consent_offer(self.smart, await consent_state.read(self.smart, current.authorization, current.session))
        if current.authorization.needs_record(current.session) and offer["choice"] is None:
            return await self._records_page(current, texts.CHOOSE)
        selected = consent_step.selected_values(current.authorization, form)
        approved = bool(admission.approval)
        return await self._request_page(
            "consent.html", current, problem, selected=selected, staff=admission.is_staff, approved=approved, **offer
        )

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
        return self._error(texts.EXPIRED) if state.authorization is None else _to("/sign-in", request=state.handle, lapsed="yes")

    async def _reject_form(self, request: Request, form: Form) -> Response:
        return self._error(FORGED_FORM, status=403, link=texts.HOME)

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
    routes.add_api_route(sign_out_pages.PATH, pages.sign_outs.show, methods=["GET"])
    routes.add_api_route("/sign-out", pages.form_handler(pages.sign_outs.sign_out, pages.reject_sign_out), methods=["POST"])
    routes.add_api_route(sign_out_pages.END_APPS, pages.form_handler(pages.sign_outs.end_apps), methods=["POST"])
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
    routes.add_api_route(RECORD_SEARCH, pages.form_handler(pages.search_records), methods=["POST"])
    routes.add_api_route(RECORD_SEARCH, pages.show_records, methods=["GET"])
    app_handover.add_app_handover(routes, smart)
    add_logout_pages(routes, smart)
    routes.add_api_route("/oauth/cancel", pages.form_handler(pages.cancel), methods=["POST"])
    add_second_factor_pages(routes, smart)
    add_password_pages(routes, smart)
    routes.add_api_route("/static/{name}", static, methods=["GET"])
