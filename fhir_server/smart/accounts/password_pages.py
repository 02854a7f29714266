"""The pages on which a password is set with a one-time code: ``/set-password`` with one from the office, ``/recover`` with a mailed one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import account_events, browser_names, cookies, password_codes, sessions, users
from fhir_server.smart.accounts.account_events import EventKind
from fhir_server.smart.accounts.password_codes import CodeSource, SecondFactorNeededError
from fhir_server.smart.accounts.visitor_forms import read_own_form
from fhir_server.smart.core.context import HOUR, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.web.forms import address, with_headers

PATH: Final = "/set-password"
RECOVER: Final = "/recover"
PER_ADDRESS: Final = 60  # attempts an hour
_WRONG: Final = "The user name or the code is wrong, or the code was already used or has expired. Check both, or ask for a new code."
_DIFFER: Final = "The two passwords do not match."
_NEEDED: Final = (
    "This account uses two-step verification. Enter a code from your authenticator app, or a recovery code. If you did, it is wrong, "
    "expired or already used, or there were too many attempts: wait for the next code, or 15 minutes."
)
_TOO_MANY: Final = "Too many attempts from your network. Try again in an hour."


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two pages.  ``event`` is what the owner reads of it, ``what`` what the audit log says."""

    path: str
    title: str
    source: CodeSource
    event: EventKind
    what: str


OFFICE: Final = Way(PATH, "Set a password", password_codes.OFFICE, "password-code", "password-by-code")
MAIL: Final = Way(RECOVER, "Choose a new password", password_codes.MAIL, "password-mail", "password-by-mail")


class PasswordPages:
    """One of the pages, of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext, way: Way) -> None:
        self._smart = smart
        self._way = way
        self._limit = RateLimit("password by code", PER_ADDRESS, HOUR)

    async def show(self, request: Request) -> Response:
        return self._form(request, {})

    async def submit(self, request: Request) -> Response:
        form = await read_own_form(self._smart, request)
        if isinstance(form, Response):
            return form
        client, now = address(request), self._smart.now()
        if wait := await self._limit.take(self._smart.store.key_values, client, now):
            return with_headers(render(self._smart, "error.html", 429, text=_TOO_MANY, detail=""), retry_after(wait))
        username, password = form.get("username", ""), form.get("new", "")
        if password != form.get("again", ""):
            return self._form(request, form, _DIFFER)
        device = cookies.device_cookie(self._smart, request)
        try:
            user = await password_codes.redeem(
                self._smart, username, form.get("code", ""), password, self._way.source, form.get("second", ""), device
            )
        except SecondFactorNeededError:
            await self._record(username, client, done=False)
            return self._form(request, form, _NEEDED)
        except (ValueError, TimeoutError) as error:
            return self._form(request, form, str(error) or _WRONG)
        await self._record(user.username if user else username, client, done=user is not None)
        if user is None:
            return self._form(request, form, _WRONG)
        await account_events.record(self._smart.store, user, self._way.event, now, browser_names.describe_browser(request))
        return render(self._smart, "password_set.html")

    async def _record(self, username: str, client: str, *, done: bool) -> None:
        known = await users.find(self._smart.store, username)
        detail = {"what": self._way.what}
        await self._smart.record(SecurityEvent("change-account", done, known.username if known else "", address=client, detail=detail))

    def _form(self, request: Request, form: dict[str, str], problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        values = {name: form.get(name, "") for name in ("username", "code")}
        token = sessions.form_token(cookie)
        page = render(self._smart, "set_password.html", 400 if problem else 200, token=token, problem=problem, way=self._way, **values)
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def add_password_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the routes of the pages: the one for mailed codes where the server sends e-mail."""
    for way in (OFFICE, *((MAIL,) if smart.mail.is_available else ())):
        pages = PasswordPages(smart, way)
        routes.add_api_route(way.path, pages.show, methods=["GET"])
        routes.add_api_route(way.path, pages.submit, methods=["POST"])
