"""The page ``/set-password``: set a password with a one-time code from the operator."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import account_events, browser_names, cookies, password_codes, sessions, users
from fhir_server.smart.core.context import HOUR, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import FORGED_FORM, BadFormError, address, read_form, with_headers

PATH: Final = "/set-password"
PER_ADDRESS: Final = 60  # attempts an hour
_WRONG: Final = "The user name or the code is wrong, or the code was already used or has expired. Check both, or ask for a new code."
_DIFFER: Final = "The two passwords do not match."
_TOO_MANY: Final = "Too many attempts from your network. Try again in an hour."


class PasswordPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._limit = RateLimit("password by code", PER_ADDRESS, HOUR)

    async def show(self, request: Request) -> Response:
        return self._form(request, {})

    async def submit(self, request: Request) -> Response:
        try:
            form = dict(await read_form(request))
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        if not cookies.is_own_form(self._smart, request, form.get("token", "")):
            return render(self._smart, "error.html", 403, text=FORGED_FORM, detail="")
        client, now = address(request), self._smart.now()
        if wait := await self._limit.take(self._smart.store.key_values, client, now):
            return with_headers(render(self._smart, "error.html", 429, text=_TOO_MANY, detail=""), retry_after(wait))
        username, password = form.get("username", ""), form.get("new", "")
        if password != form.get("again", ""):
            return self._form(request, form, _DIFFER)
        try:
            user = await password_codes.redeem(self._smart, username, form.get("code", ""), password)
        except (ValueError, TimeoutError) as error:
            return self._form(request, form, str(error) or _WRONG)
        known = user or await users.find(self._smart.store, username)
        event = SecurityEvent(
            "change-account", user is not None, known.username if known else "", address=client, detail={"what": "password-by-code"}
        )
        await self._smart.record(event)
        if user is None:
            return self._form(request, form, _WRONG)
        await account_events.record(self._smart.store, user, "password-code", now, browser_names.describe_browser(request))
        return render(self._smart, "password_set.html")

    def _form(self, request: Request, form: dict[str, str], problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        values = {name: form.get(name, "") for name in ("username", "code")}
        token = sessions.form_token(cookie)
        page = render(self._smart, "set_password.html", 400 if problem else 200, token=token, problem=problem, **values)
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def add_password_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    pages = PasswordPages(smart)
    routes.add_api_route(PATH, pages.show, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
