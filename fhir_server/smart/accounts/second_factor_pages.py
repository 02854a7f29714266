"""Completes a sign-in after the first factor: starts a session, asks for the second factor, or sets one up.

Every kind of sign-in ends here, so none is weaker than another (OWASP ASVS 5.0, 6.3.4).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.smart.accounts import account_events, browser_names, cookies, second_factor, second_factor_pending, sessions, users
from fhir_server.smart.accounts.second_factor_pending import PendingSecondFactor
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import FORGED_FORM, NO_STORE, BadFormError, address, local_path, read_form

PATH: Final = "/sign-in/second"
_WRONG: Final = (
    "The code is wrong, expired or already used, or there were too many attempts. Wait for the next code and try again. "
    "After several attempts, wait 15 minutes."
)


def return_path(request: str, next: str) -> str:
    """Return the path where a sign-in leads: to the authorization request ``request`` if it is given, else to ``next``."""
    return f"/oauth/continue?{urlencode({'request': request})}" if request else local_path(next)


async def after_first_factor(smart: SmartContext, request: Request, user: User, path: str, amr: tuple[str, ...]) -> Response:
    """Return the response to a right first factor, which ``amr`` names (RFC 8176).  Ends the browser's earlier session."""
    await sessions.end(smart, cookies.session_cookie(smart, request))
    if await second_factor.find_factor(smart, user):
        return cookies.with_session_cookie(smart, _to(PATH), await second_factor_pending.start(smart, user, path, amr=amr))
    if second_factor.is_required(smart, user):
        seed = second_factor.encrypt_seed(smart, second_factor.new_seed())
        return cookies.with_session_cookie(smart, _to(PATH), await second_factor_pending.start(smart, user, path, seed, amr))
    return cookies.with_session_cookie(smart, _to(path), await _start_session(smart, request, user, amr))


class SecondFactorPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    async def show(self, request: Request) -> Response:
        return await self._form(request)

    async def submit(self, request: Request) -> Response:
        try:
            form = dict(await read_form(request))
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        if not cookies.is_own_form(self._smart, request, form.get("token", "")):
            return render(self._smart, "error.html", 403, text=FORGED_FORM, detail="")
        cookie = cookies.session_cookie(self._smart, request)
        pending_sign_in = await second_factor_pending.find(self._smart, cookie)
        if pending_sign_in is None:
            return _to("/sign-in")
        pending, user = pending_sign_in
        sets_up = pending.seed and await second_factor.find_factor(self._smart, user) is None
        seed = second_factor.decrypt_seed(self._smart, pending.seed) if sets_up else b""
        code = form.get("code", "")
        is_right = await (
            second_factor.verify_first_code(self._smart, user, code, seed) if seed else second_factor.verify_code(self._smart, user, code)
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
            await self._smart.store.key_values.delete_family(users.session_family(user.username))
        codes = await second_factor.enroll(self._smart, user, seed) if seed else ()
        if codes:
            await account_events.record(self._smart.store, user, "second", self._smart.now(), browser_names.describe_browser(request))
        cookie = await _start_session(self._smart, request, user, amr)
        if not codes:
            return cookies.with_session_cookie(self._smart, _to(path), cookie)
        session = Session(user, self._smart.now(), sessions.form_token(cookie))
        page = render(self._smart, "recovery_codes.html", codes=codes, onward=path, session=session)
        return cookies.with_session_cookie(self._smart, page, cookie)

    async def _form(self, request: Request, problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request)
        pending_sign_in = await second_factor_pending.find(self._smart, cookie)
        if pending_sign_in is None:
            return _to("/sign-in")
        pending, user = pending_sign_in
        view: dict[str, Any] = {"token": sessions.form_token(cookie), "problem": problem, "setup": None}
        if pending.seed:
            view["setup"] = second_factor.build_setup(self._smart, user, second_factor.decrypt_seed(self._smart, pending.seed))
        return render(self._smart, "two_step_verification.html", 400 if problem else 200, **view)


async def _start_session(smart: SmartContext, request: Request, user: User, amr: tuple[str, ...]) -> str:
    """Start a session for a user who has just signed in, and return its cookie."""
    browser = browser_names.describe_browser(request)
    await account_events.record(smart.store, user, "signed-in", smart.now(), browser)
    return await sessions.start(smart, user, browser, amr)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers=NO_STORE)


def add_second_factor_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    pages = SecondFactorPages(smart)
    routes.add_api_route(PATH, pages.show, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
