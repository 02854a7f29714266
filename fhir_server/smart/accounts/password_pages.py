"""``/set-password``: choosing a password with a code from the operator."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import account_events, browser_names, cookies, password_codes, sessions, users
from fhir_server.smart.core.context import HOUR, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import BadFormError, address, read_form, with_headers

PATH: Final = "/set-password"
PER_ADDRESS: Final = 60  # tries an hour
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_WRONG: Final = (
    "The user name or the code is not right, or the code was used or has run out. Check it letter by letter, or ask for a new one."
)
_DIFFER: Final = "The password was not written the same way twice."
_TOO_MANY: Final = "There have been too many tries from your address. Try again in an hour."


class PasswordPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._limit = RateLimit(PER_ADDRESS, HOUR)

    async def form(self, request: Request) -> Response:
        return self._form(request, {})

    async def sent(self, request: Request) -> Response:
        try:
            given = dict(await read_form(request))
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        if not cookies.is_own_form(self._smart, request, given.get("token", "")):
            return render(self._smart, "error.html", 403, text=_FORGED, detail="")
        who, now = address(request), self._smart.now()
        if not self._limit.count_if_allowed(who, now):
            return with_headers(render(self._smart, "error.html", 429, text=_TOO_MANY, detail=""), self._limit.headers(who, now))
        username, password = given.get("username", ""), given.get("new", "")
        if password != given.get("again", ""):
            return self._form(request, given, _DIFFER)
        try:
            user = await password_codes.choose(self._smart, username, given.get("code", ""), password)
        except (ValueError, TimeoutError) as error:
            return self._form(request, given, str(error) or _WRONG)
        known = user or await users.find(self._smart.store, username)
        act = SecurityEvent(
            "change-account", user is not None, known.username if known else "", address=who, detail={"what": "password-by-code"}
        )
        await self._smart.record(act)
        if user is not None:
            await account_events.record(self._smart.store, user, "password-code", now, browser_names.describe_browser(request))
        return self._form(request, given, _WRONG) if user is None else render(self._smart, "password_set.html")

    def _form(self, request: Request, given: dict[str, str], problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        typed = {name: given.get(name, "") for name in ("username", "code")}
        token = sessions.form_token(cookie)
        page = render(self._smart, "set_password.html", 400 if problem else 200, token=token, problem=problem, **typed)
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def add_password_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    here = PasswordPages(smart)
    routes.add_api_route(PATH, here.form, methods=["GET"])
    routes.add_api_route(PATH, here.sent, methods=["POST"])
