"""What people see on the way: authorize, sign-in, record picker, consent, signed-out.

Every step re-reads what the last one kept and decides again; nothing a form sends is believed but the choice itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import OAuth2Error
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.smart.accounts import cookies, identity_providers, known_devices, second_factor_pending, sessions, users
from fhir_server.smart.accounts.password_pages import add_password_pages
from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from fhir_server.smart.accounts.second_factor_pages import add_second_factor_pages, after_first_factor, return_path
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import consent_step, requests
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.clients import clients
from fhir_server.smart.core.authlib import run_in_thread, to_authlib_request, to_http_response
from fhir_server.smart.core.context import MINUTE, SESSION_IDLE, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.pages import render, static
from fhir_server.smart.tokens.server import OAuthServer
from fhir_server.web.forms import NO_STORE, BadFormError, Form, address, fields, read_form, with_headers

_PARAMETERS = {
    *("response_type", "client_id", "redirect_uri", "scope", "state", "aud", "launch"),
    *("code_challenge", "code_challenge_method", "nonce", "prompt", "max_age"),
}
_EXPIRED = "This request has run out or was already answered. Go back to the app and start again."
_ANSWERED = (
    "You have answered this request already, or it has run out. Go back to the app; if it does not go on by itself, start again there. "
    "What you have allowed is listed under connected apps, where you can also end it."
)
_FORGED = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_REFUSED = "The user name or password is not right, or there have been too many attempts. Check both, or try again in 15 minutes."
_UNSOUND = "The app sent a request that we cannot accept. Go back to the app and try again."
_CHOOSE = "Choose one of the records shown."
_TOO_MANY = "There have been too many requests from your address. Wait a minute, then go back to the app and start again."
_TOO_MANY_SIGN_INS = "There have been too many sign-ins from your address. Wait a minute, then try again."
PER_ADDRESS = 120  # authorization requests, and sign-ins, a minute; a ward or a family shares one address
_OLD_SIGN_IN = "The page you signed in on was too old. Sign in once more. If that happens again, allow cookies for this site."
_SIGNED_IN = "You are signed in. The form was sent a second time, and that did nothing more."
_HOME = ("To the start page", "/")
Step = Callable[[Request, Form], Awaitable[Response]]
_CHOOSE_VISIT = "Choose one of the visits shown, or none in particular."


class AuthorizePages:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext, server: OAuthServer) -> None:
        self.smart = smart
        self.server = server
        self._limit = RateLimit(PER_ADDRESS, MINUTE)
        self._sign_ins = RateLimit(PER_ADDRESS, MINUTE)

    async def authorize(self, request: Request) -> Response:
        try:
            pairs = await read_form(request) if request.method == "POST" else fields(request.url.query)
            asked = to_authlib_request(request, self.smart.origin, pairs)
        except BadFormError as error:
            return self._error(str(error))
        try:
            await run_in_thread(self.server.validate_request, asked)
        except OAuth2Error as error:
            answer = self.server.error_response(asked, error)
            follow = answer.location and not await self._self_registered(asked.form.get("client_id", ""))
            return to_http_response(answer, {}) if follow else self._error(_UNSOUND, error)
        given = asked.form
        who, now = address(request), self.smart.now()
        if not self._limit.count_if_allowed(who, now):
            return with_headers(self._error(_TOO_MANY, status=429), self._limit.headers(who, now))
        record = AuthorizationRequest(_is_known(pairs), given["client_id"], given["redirect_uri"], asked.scope, now)
        return _to("/oauth/continue", request=await requests.save(self.smart, record))

    async def proceed(self, request: Request) -> Response:
        """To the step that comes next."""
        handle, record, session = await self._state(request)
        if record is None:
            return self._error(_EXPIRED)
        if session is None or not record.accepts_session(session):
            return _to("/sign-in", request=handle)
        return _to(record.next_page(session), request=handle)

    async def sign_in(self, request: Request) -> Response:
        return await self._sign_in(request, dict(request.query_params))

    async def sign_in_sent(self, request: Request, form: Form) -> Response:
        given, now, device = dict(form), self.smart.now(), cookies.device_cookie(self.smart, request)
        who = address(request)
        if not self._sign_ins.count_if_allowed(who, now):  # each costs a hash, also where it could not be right any more
            return with_headers(self._error(_TOO_MANY_SIGN_INS, status=429), self._sign_ins.headers(who, now))
        name, password = given.get("username", ""), given.get("password", "")
        user = await check_password_sign_in(self.smart.store, name, password, address(request), now, device)
        if user is None:
            known = await users.find(self.smart.store, given.get("username", ""))
            await self.smart.record(SecurityEvent("sign-in", False, known.username if known else "", address=address(request)))
            return await self._sign_in(request, given, _REFUSED, 400)
        await self.smart.record(SecurityEvent("sign-in", username=user.username, address=address(request), detail={"factor": "password"}))
        answer = await after_first_factor(self.smart, request, user, return_path(given.get("request", ""), given.get("next", "")))
        return cookies.with_device_cookie(self.smart, answer, await known_devices.remember(self.smart.store, device, user.username, now))

    async def record(self, request: Request) -> Response:
        handle, record, session = await self._state(request)
        if record is None or session is None:
            return await self.proceed(request)
        return await self._picker(handle, record, session)

    async def record_sent(self, request: Request, form: Form) -> Response:
        handle, record, session = await self._state(request, form)
        if record is None or session is None:
            return self._interrupted(handle, record)
        chosen = dict(form).get("patient", "")
        if chosen not in await requests.choices(self.smart, session):
            return await self._picker(handle, record, session, _CHOOSE)
        await requests.choose(self.smart, handle, record, session, chosen)
        return _to("/oauth/continue", request=handle)

    async def visit(self, request: Request) -> Response:
        handle, record, session = await self._state(request)
        if record is None or session is None or record.next_page(session) == requests.RECORD:
            return await self.proceed(request)
        return await self._visits(handle, record, session)

    async def visit_sent(self, request: Request, form: Form) -> Response:
        handle, record, session = await self._state(request, form)
        if record is None or session is None:
            return self._interrupted(handle, record)
        if record.next_page(session) == requests.RECORD:
            return self._error(_EXPIRED)
        encounter = dict(form).get("encounter")
        if encounter != "" and encounter not in await requests.encounters(self.smart, record, session):
            return await self._visits(handle, record, session, _CHOOSE_VISIT)
        await requests.choose_encounter(self.smart, handle, record, encounter)
        return _to("/oauth/continue", request=handle)

    async def consent(self, request: Request) -> Response:
        handle, record, session = await self._state(request)
        if record is None or session is None or not record.accepts_session(session) or not record.chosen(session):
            return await self.proceed(request)
        return await self._consent_page(handle, record, session)

    async def consent_sent(self, request: Request, form: Form) -> Response:
        handle, record, session = await self._state(request, form)
        if session is not None and record is None:
            return self._error(_ANSWERED, on=("Connected apps", "/apps"))
        if record is None or session is None or not record.accepts_session(session):
            return self._interrupted(handle, record)
        decision = None
        if dict(form).get("decision") == "allow":
            try:
                decision = await consent_step.decision(self.smart, record, session, form)
            except consent_step.UnclearAnswerError as unclear:
                return await self._consent_page(handle, record, session, str(unclear), form)
        if not await requests.take(self.smart, handle):
            return self._error(_ANSWERED, on=("Connected apps", "/apps"))
        asked = to_authlib_request(request, self.smart.origin, list(record.pairs))
        about, detail = (patient_references(decision.token_grant.patient), {"scope": decision.token_grant.scope}) if decision else ((), {})
        await self.smart.record(
            SecurityEvent("allow-app", decision is not None, session.user.username, record.client_id, "", about, detail)
        )
        return to_http_response(await run_in_thread(self.server.authorization_response, asked, decision), {})

    async def sign_out(self, request: Request, form: Form) -> Response:
        session = await sessions.current(self.smart, self._cookie(request))
        if session is not None:
            await self.smart.record(SecurityEvent("sign-out", username=session.user.username))
        await sessions.end(self.smart, self._cookie(request))
        answer = _to("/signed-out")
        answer.delete_cookie(**cookies.form_tokens(self.smart))
        return answer

    async def signed_out(self, request: Request) -> Response:
        return self._page("signed_out.html")

    # parts

    async def _self_registered(self, client_id: str) -> bool:
        """Whether anybody could have chosen where this client's answers go: then nobody is sent there unasked (RFC 9700 4.11.2)."""
        client = await clients.find(self.smart.store, client_id)
        return client is not None and bool(client.registration_token_hash)

    async def _sign_in(self, request: Request, given: dict[str, str], problem: str = "", status: int = 200) -> Response:
        cookie = self._cookie(request) or new_secret()
        values: dict[str, Any] = {"request": given.get("request", ""), "next": given.get("next", ""), "username": given.get("username", "")}
        record = await requests.find(self.smart, values["request"])
        asking = await consent_step.requested_scopes(self.smart, record) if record else {"client_name": "", "client_host": ""}
        if values["request"] and record is None:
            return self._error(_EXPIRED, on=_HOME)
        values |= {"lapsed": "lapsed" in given, "idle": SESSION_IDLE // MINUTE}
        values |= {"providers": await identity_providers.list_all(self.smart.store), "token": sessions.form_token(cookie)}
        page = self._page("sign_in.html", status, problem=problem, **values, **asking)
        return page if self._cookie(request) else self._with_cookie(page, cookie)

    async def _picker(self, handle: str, record: AuthorizationRequest, session: Session, problem: str = "") -> Response:
        choices = await requests.choices(self.smart, session)
        view = await consent_step.requested_scopes(self.smart, record) | {"handle": handle, "session": session, "problem": problem}
        name = "record.html" if choices else "no_record.html"
        return self._page(name, 400 if problem else 200, record.redirect_uri, choices=list(choices.values()), **view)

    async def _visits(self, handle: str, record: AuthorizationRequest, session: Session, problem: str = "") -> Response:
        choices = list((await requests.encounters(self.smart, record, session)).values())
        view = await consent_step.requested_scopes(self.smart, record) | {"handle": handle, "session": session, "problem": problem}
        return self._page("visit.html", 400 if problem else 200, record.redirect_uri, choices=choices, **view)

    async def _consent_page(
        self, handle: str, record: AuthorizationRequest, session: Session, problem: str = "", form: Form | None = None
    ) -> Response:
        view = await consent_step.requested_scopes(self.smart, record) | await consent_step.consent_offer(self.smart, record, session)
        view["ticked"] = consent_step.ticked_scopes(record, form)
        if record.needs_record(session) and view["choice"] is None:
            return await self._picker(handle, record, session, _CHOOSE)
        status = 400 if problem else 200
        return self._page("consent.html", status, record.redirect_uri, handle=handle, session=session, problem=problem, **view)

    async def _state(self, request: Request, form: Form | None = None) -> tuple[str, AuthorizationRequest | None, Session | None]:
        # A form's own field, or the address of a page: never the one where the other is meant.
        handle = (dict(request.query_params) if form is None else dict(form)).get("request", "")
        session = await sessions.current(self.smart, self._cookie(request))
        return handle, await requests.find(self.smart, handle), session

    def _interrupted(self, handle: str, record: AuthorizationRequest | None) -> Response:
        """On from a step whose form comes from nobody who is signed in: she signs in and decides then."""
        return self._error(_EXPIRED) if record is None else _to("/sign-in", request=handle, lapsed="yes")

    async def sign_in_forged(self, request: Request, form: Form) -> Response:
        """For a form that was sent twice, or had stood open while somebody signed in or out: it does nothing, and leads on."""
        given = dict(form)
        if not cookies.is_same_site(request):
            return self._error(_FORGED, status=403, on=_HOME)
        way = {"request": given.get("request", ""), "next": given.get("next", "")}
        if await sessions.current(self.smart, self._cookie(request)) is None:
            return self._error(_OLD_SIGN_IN, status=403, on=("Sign in", f"/sign-in?{urlencode(way)}"))
        return self._error(_SIGNED_IN, status=403, on=("Go on", return_path(**way)))

    async def sign_out_forged(self, request: Request, form: Form) -> Response:
        """Who has signed out already, in another tab, is signed out."""
        cookie = self._cookie(request)
        begun = await sessions.current(self.smart, cookie) or await second_factor_pending.find(self.smart, cookie)
        return _to("/signed-out") if not begun and cookies.is_same_site(request) else await self._forged(request, form)

    async def _forged(self, request: Request, form: Form) -> Response:
        return self._error(_FORGED, status=403, on=_HOME)

    def form(self, handler: Step, forged: Step | None = None) -> Callable[[Request], Awaitable[Response]]:
        """A POST handler that is only reached by forms this browser was shown; ``forged`` answers any others."""

        async def guarded(request: Request) -> Response:
            try:
                form = await read_form(request)
            except BadFormError as error:
                return self._error(str(error))
            if not cookies.is_own_form(self.smart, request, dict(form).get("token", "")):
                return await (forged or self._forged)(request, form)
            return await handler(request, form)

        return guarded

    def _page(self, name: str, status: int = 200, redirect_uri: str = "", **view: Any) -> Response:
        return render(self.smart, name, status, redirect_uri, **view)

    def _error(self, text: str, error: OAuth2Error | None = None, status: int = 400, on: tuple[str, str] | None = None) -> Response:
        """A page that says what is wrong; ``on`` is what its link says, and where it leads."""
        return self._page("error.html", status, text=text, detail=error.description if error else "", on=on)

    def _cookie(self, request: Request) -> str:
        return cookies.session_cookie(self.smart, request)

    def _with_cookie(self, answer: Response, cookie: str) -> Response:
        return cookies.with_session_cookie(self.smart, answer, cookie)


def _is_known(pairs: Form) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs if name in _PARAMETERS)


def _to(path: str, **query: str) -> RedirectResponse:
    return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303, headers=NO_STORE)


def add_pages(routes: APIRouter, smart: SmartContext, server: OAuthServer) -> None:
    """Add the pages' routes."""
    pages = AuthorizePages(smart, server)
    routes.add_api_route("/oauth/authorize", pages.authorize, methods=["GET", "POST"])
    routes.add_api_route("/oauth/continue", pages.proceed, methods=["GET"])
    routes.add_api_route("/signed-out", pages.signed_out, methods=["GET"])
    routes.add_api_route("/sign-out", pages.form(pages.sign_out, pages.sign_out_forged), methods=["POST"])
    routes.add_api_route("/sign-in", pages.sign_in, methods=["GET"])
    routes.add_api_route("/sign-in", pages.form(pages.sign_in_sent, pages.sign_in_forged), methods=["POST"])
    steps = {
        "/oauth/record": (pages.record, pages.record_sent),
        "/oauth/visit": (pages.visit, pages.visit_sent),
        "/oauth/consent": (pages.consent, pages.consent_sent),
    }
    for path, (shown, sent) in steps.items():
        routes.add_api_route(path, shown, methods=["GET"])
        routes.add_api_route(path, pages.form(sent), methods=["POST"])
    add_second_factor_pages(routes, smart)
    add_password_pages(routes, smart)
    routes.add_api_route("/static/{name}", static, methods=["GET"])
