"""After the first factor: a session, or the page that asks for the second one, or that sets it up.

Every way of signing in ends here, so that none is weaker than another (OWASP ASVS 5.0, 6.3.4).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.smart.accounts import account_events, browser_names, cookies, second_factor, second_factor_pending, sessions, users
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE, BadFormError, address, local_path, read_form

PATH: Final = "/sign-in/second"
_WRONG: Final = (
    "This code is not right, has run out or was used before, or there were too many attempts. Wait for the next code and try again; "
    "after several attempts, wait some minutes."
)
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."


def return_path(request: str, next: str) -> str:
    """Where a sign-in leads: on with the authorization request ``request``, or else to the local path ``next``."""
    return f"/oauth/continue?{urlencode({'request': request})}" if request else local_path(next)


async def after_first_factor(smart: SmartContext, request: Request, user: User, onward: str) -> Response:
    """The answer to a first factor that was right; the browser's session before it is over."""
    await sessions.end(smart, cookies.session_cookie(smart, request))
    if await second_factor.find_factor(smart, user):
        return cookies.with_session_cookie(smart, _to(PATH), await second_factor_pending.start(smart, user, onward))
    if second_factor.is_required(smart, user):
        seed = second_factor.encrypt_seed(smart, second_factor.new_seed())
        return cookies.with_session_cookie(smart, _to(PATH), await second_factor_pending.start(smart, user, onward, seed))
    return cookies.with_session_cookie(smart, _to(onward), await _begin(smart, request, user))


class SecondFactorPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    async def form(self, request: Request) -> Response:
        return await self._form(request)

    async def sent(self, request: Request) -> Response:
        try:
            given = dict(await read_form(request))
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        if not cookies.is_own_form(self._smart, request, given.get("token", "")):
            return render(self._smart, "error.html", 403, text=_FORGED, detail="")
        cookie = cookies.session_cookie(self._smart, request)
        found = await second_factor_pending.find(self._smart, cookie)
        if found is None:
            return _to("/sign-in")
        begun, user = found
        offered = begun.seed and await second_factor.find_factor(self._smart, user) is None
        seed = second_factor.decrypt_seed(self._smart, begun.seed) if offered else b""
        code = given.get("code", "")
        right = await (
            second_factor.verify_first_code(self._smart, user, code, seed) if seed else second_factor.verify_code(self._smart, user, code)
        )
        right = right and await second_factor_pending.consume(self._smart, cookie)
        await self._smart.record(SecurityEvent("sign-in", right, user.username, address=address(request), detail={"factor": "second"}))
        if not right:
            return await self._form(request, _WRONG)
        return await self._signed_in(request, user, begun.return_path, seed)

    async def _signed_in(self, request: Request, user: User, onward: str, seed: bytes) -> Response:
        if seed:
            # Whoever else has begun to set this account up, with the password alone, has to begin again and show a code.
            await self._smart.store.key_values.delete_family(users.session_family(user.username))
        codes = await second_factor.enroll(self._smart, user, seed) if seed else ()
        if codes:
            await account_events.record(self._smart.store, user, "second", self._smart.now(), browser_names.describe_browser(request))
        cookie = await _begin(self._smart, request, user)
        if not codes:
            return cookies.with_session_cookie(self._smart, _to(onward), cookie)
        session = Session(user, self._smart.now(), sessions.form_token(cookie))
        page = render(self._smart, "recovery_codes.html", codes=codes, onward=onward, session=session)
        return cookies.with_session_cookie(self._smart, page, cookie)

    async def _form(self, request: Request, problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request)
        found = await second_factor_pending.find(self._smart, cookie)
        if found is None:
            return _to("/sign-in")
        begun, user = found
        view: dict[str, Any] = {"token": sessions.form_token(cookie), "problem": problem, "setup": None}
        if begun.seed:
            view["setup"] = second_factor.build_setup(self._smart, user, second_factor.decrypt_seed(self._smart, begun.seed))
        return render(self._smart, "second_step.html", 400 if problem else 200, **view)


async def _begin(smart: SmartContext, request: Request, user: User) -> str:
    """The cookie of the session of who has just signed in."""
    browser = browser_names.describe_browser(request)
    await account_events.record(smart.store, user, "signed-in", smart.now(), browser)
    return await sessions.start(smart, user, browser)


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers=NO_STORE)


def add_second_factor_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    here = SecondFactorPages(smart)
    routes.add_api_route(PATH, here.form, methods=["GET"])
    routes.add_api_route(PATH, here.sent, methods=["POST"])
