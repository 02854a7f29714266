"""Completes a sign-in after the first factor: starts a session, asks for the second factor, or sets one up.

Every kind of sign-in ends here, so none is weaker than another (OWASP ASVS 5.0, 6.3.4).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.smart.accounts import (
    account_events,
    browser_names,
    cookies,
    known_devices,
    second_factor,
    second_factor_pending,
    sessions,
)
from fhir_server.smart.accounts.second_factor_pending import PendingSecondFactor
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.accounts.visitor_forms import read_own_form
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE, address, local_path

PATH: Final = "/sign-in/second"
_WRONG: Final = (
    "The code is wrong, expired or already used, or there were too many attempts. Wait for the next code and try again. "
    "After several attempts, wait 15 minutes."
)


def return_path(request: str, next: str) -> str:
    """Return the path where a sign-in leads: to the authorization request ``request`` if it is given, else to ``next``."""
    return f"/oauth/continue?{urlencode({'request': request})}" if request else local_path(next)


def _request_of(path: str) -> str:
    """The authorization request to which :func:`return_path` leads; "" if it leads elsewhere."""
    parts = urlsplit(path)
    return dict(parse_qsl(parts.query)).get("request", "") if parts.path == "/oauth/continue" else ""


async def after_first_factor(
    smart: SmartContext, request: Request, user: User, path: str, authenticated: int, amr: tuple[str, ...]
) -> Response:
    """Return the response to a right first factor.  Ends the browser's earlier session.

    ``authenticated``  when the person gave it, in microseconds; 0 if that is not known
    ``amr``            names it (RFC 8176)
    """
    await sessions.end(smart, cookies.session_cookie(smart, request))
    seed = b""
    if not (has_factor := bool(await second_factor.find_factor(smart, user))) and second_factor.is_required(smart, user):
        seed = second_factor.encrypt_seed(smart, second_factor.new_seed())
    if has_factor or seed:
        return cookies.with_session_cookie(smart, _to(PATH), await second_factor_pending.start(smart, user, path, authenticated, seed, amr))
    return await _with_session(smart, request, user, _to(path), await _start_session(smart, request, user, authenticated, amr))


class SecondFactorPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    async def show(self, request: Request) -> Response:
        return await self._form(request)

    async def submit(self, request: Request) -> Response:
        form = await read_own_form(self._smart, request)
        if isinstance(form, Response):
            return form
        cookie = cookies.session_cookie(self._smart, request)
        pending_sign_in = await second_factor_pending.find(self._smart, cookie)
        if pending_sign_in is None:
            return _to("/sign-in")
        pending, user = pending_sign_in
        sets_up = pending.seed and await second_factor.find_factor(self._smart, user) is None
        seed = second_factor.decrypt_seed(self._smart, pending.seed) if sets_up else b""
        code = form.get("code", "")
        is_right = await (
            second_factor.verify_first_code(self._smart, user, code, seed)
            if seed
            else second_factor.verify_code(self._smart, user, code, cookies.device_cookie(self._smart, request))
        )
        is_right = is_right and await second_factor_pending.consume(self._smart, cookie)
        await self._smart.record(SecurityEvent("sign-in", is_right, user.username, address=address(request), detail={"factor": "second"}))
        if not is_right:
            return await self._form(request, _WRONG)
        return await self._signed_in(request, user, pending, seed)

    async def _signed_in(self, request: Request, user: User, pending: PendingSecondFactor, seed: bytes) -> Response:
        path, amr = pending.return_path, (*pending.amr, "otp", "mfa")
        if seed:
            # Ends other pending setups of this account: they know the password only, and must now enter a code.
            await session_ends.end_all(self._smart.store, user.username)
        codes = await second_factor.enroll(self._smart, user, seed) if seed else ()
        if codes:
            await account_events.record(self._smart.store, user, "second", self._smart.now(), browser_names.describe_browser(request))
        cookie = await _start_session(self._smart, request, user, pending.authenticated, amr)
        if not codes:
            return await _with_session(self._smart, request, user, _to(path), cookie)
        session = Session(user, self._smart.now(), sessions.form_token(cookie))
        page = render(self._smart, "recovery_codes.html", codes=codes, onward=path, session=session)
        return await _with_session(self._smart, request, user, page, cookie)

    async def _form(self, request: Request, problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request)
        pending_sign_in = await second_factor_pending.find(self._smart, cookie)
        if pending_sign_in is None:
            return _to("/sign-in")
        pending, user = pending_sign_in
        view: dict[str, Any] = {"token": sessions.form_token(cookie), "problem": problem, "setup": None}
        view["request"] = _request_of(pending.return_path)
        if pending.seed:
            view["setup"] = second_factor.build_setup(self._smart, user, second_factor.decrypt_seed(self._smart, pending.seed))
        return render(self._smart, "two_step_verification.html", 400 if problem else 200, **view)


async def _start_session(smart: SmartContext, request: Request, user: User, authenticated: int, amr: tuple[str, ...]) -> str:
    """Start a session for a user who has just signed in, and return its cookie."""
    browser = browser_names.describe_browser(request)
    await account_events.record(smart.store, user, "signed-in", smart.now(), browser)
    return await sessions.start(smart, user, browser, authenticated=authenticated, amr=amr)


async def _with_session(smart: SmartContext, request: Request, user: User, response: Response, cookie: str) -> Response:
    """Give the browser its session, and mark it as one in which the user has signed in, in whatever way."""
    device = await known_devices.remember(smart.store, cookies.device_cookie(smart, request), user.username, smart.now())
    return cookies.with_device_cookie(smart, cookies.with_session_cookie(smart, response, cookie), device)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers=NO_STORE)


def add_second_factor_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    pages = SecondFactorPages(smart)
    routes.add_api_route(PATH, pages.show, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
