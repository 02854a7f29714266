"""The page ``/join``: a patient opens an account with a code from the office or from an e-mail."""

from __future__ import annotations

from datetime import date
from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.portal import page_handlers
from fhir_server.smart.accounts import account_codes, account_events, browser_names, cookies, sessions
from fhir_server.smart.accounts.account_codes import AccountCodeError
from fhir_server.smart.accounts.visitor_forms import read_own_form
from fhir_server.smart.core.context import HOUR, SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.notices import contacts
from fhir_server.web.forms import address, with_headers

PATH: Final = "/join"
PER_NETWORK: Final = 60  # attempts an hour
_WRONG: Final = (
    "The code or the birth date is wrong, or the code was already used or has expired. Check both. After several wrong birth dates a code "
    "no longer works: ask for a new one."
)
_DIFFER: Final = "The two passwords do not match."
_BUSY: Final = "Your account is being opened in another browser tab. Wait a minute and try again."
_TOO_MANY: Final = "Too many attempts from your network. Try again in an hour."


class JoinPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._limit = RateLimit("accounts by code", PER_NETWORK, HOUR)

    async def show(self, request: Request) -> Response:
        return self._form(request, {})

    async def submit(self, request: Request) -> Response:
        form = await read_own_form(self._smart, request)
        if isinstance(form, Response):
            return form
        client = address(request)
        if wait := await self._limit.take(self._smart.store.key_values, client, self._smart.now()):
            return with_headers(page_handlers.render_failure(self._smart, _TOO_MANY, 429), retry_after(wait))
        if form.get("new", "") != form.get("again", ""):
            return self._form(request, form, _DIFFER)
        try:
            user, opening = await account_codes.redeem(
                self._smart, form.get("code", ""), _day(form.get("born", "")), form.get("username", ""), form.get("new", "")
            )
        except (AccountCodeError, TimeoutError, ValueError) as error:
            await self._smart.record(SecurityEvent("add-user", False, address=client, detail={"by": "code"}))
            return self._form(request, form, _WRONG if isinstance(error, AccountCodeError) else str(error) or _BUSY)
        about = patient_references(user.patient)
        await self._smart.record(SecurityEvent("add-user", username=user.username, address=client, about=about, detail={"by": "code"}))
        if opening.address:  # the code came from there
            await contacts.add(self._smart.store, user, opening.address, self._smart.now())
        browser = browser_names.describe_browser(request)
        await account_events.record(self._smart.store, user, "opened", self._smart.now(), browser)
        return page_handlers.render(self._smart, "joined.html", username=user.username, mail=self._smart.mail.is_available)

    def _form(self, request: Request, form: dict[str, str], problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        typed = {name: form.get(name, "") for name in ("code", "username")}
        token = sessions.form_token(cookie)
        page = page_handlers.render(self._smart, "join.html", 400 if problem else 200, token=token, problem=problem, **typed)
        return page if cookies.session_cookie(self._smart, request) else page_handlers.with_cookie(self._smart, page, cookie)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        return None


def add_join(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes."""
    pages = JoinPages(smart)
    routes.add_api_route(PATH, pages.show, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
