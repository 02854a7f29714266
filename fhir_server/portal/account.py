"""Sign-in and security: password, two-step verification and sessions. Each change asks for the current password."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Request, Response

from fhir_server.portal import connected_apps, page_handlers, preferences
from fhir_server.portal.preferences import Preferences
from fhir_server.smart.accounts import account_events, browser_names, reauthentication, second_factor, sessions, users
from fhir_server.smart.accounts.account_events import AccountEvent
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import MINUTE, SmartContext, digest
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.notices import addresses, contacts
from fhir_server.web.dates import format_instant, format_instant_date

PATH: Final = "/account"
_WRONG_PASSWORD: Final = (
    "Your current password is wrong, or there were too many attempts. Nothing was changed. Check the password, or wait some minutes."
)
_WRONG_PASSWORD_OR_CODE: Final = (
    "Your current password or the code is wrong, or there were too many attempts. Nothing was changed. Each code works once: wait "
    "for the next code, or wait 15 minutes."
)
_MISMATCH: Final = "The new passwords do not match. Nothing was changed."
_NO_SESSION_SELECTED: Final = "Select at least one session."
_WRONG_FIRST_CODE: Final = "This code is wrong or has expired. Wait for the next code and try again."
_SETUP_EXPIRED: Final = "The setup took too long. Start again."
_REQUIRED: Final = "A work account requires two-step verification. You can set up a new app, but you cannot turn two-step verification off."
_DONE: Final = {
    "password": "Your password was changed. You were signed out everywhere else, and apps lost access that lasts while you are signed in.",
    "sessions": "The selected sessions were signed out.",
    "results": "Your choice about new test results was saved.",
    "second": "Two-step verification was turned off. You were signed out everywhere else.",
}
_EVENT_KINDS: Final[dict[str, account_events.EventKind]] = {"password": "password", "second": "second-ended"}
_SETUP_KIND: Final = "second-factor-offer"
_SETUP_LIFE: Final = 10 * MINUTE


class AccountPages:
    """Handlers of the pages under ``/account``."""

    def __init__(self, smart: SmartContext) -> None:
        self.smart = smart

    async def show(self, request: Request, session: Session) -> Response:
        what = request.query_params.get("done", "")
        apps = await connected_apps.names(self.smart, session.user, self.smart.now()) if what == "password" else []
        return await self._page(session, done=_DONE.get(what, ""), apps=apps)

    async def change_password(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if form.get("new", "") != form.get("again", ""):
            return await self._page(session, _MISMATCH)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._reject(session, "password")
        try:
            user = await users.set_password(self.smart.store, session.user, form.get("new", ""), self.smart.passwords, self.smart.now())
        except (ValueError, TimeoutError) as error:
            return await self._page(session, str(error) or _WRONG_PASSWORD)
        return await self._finish_change(request, user, "password")

    async def choose_results(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        """Whether the person is asked before a new result is shown.  It protects nothing, so no password is asked for."""
        now = self.smart.now()
        before = await preferences.load(self.smart.store, session.user, now)
        since = (before.ask_since or now) if form.get("ask") == "yes" else None
        await preferences.save(self.smart.store, session.user, Preferences(since))
        return page_handlers.redirect_to(PATH, done="results")

    async def end_sessions(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        selected = [listed for listed in await sessions.list_all(self.smart, session.user) if f"end-{digest(listed.key)}" in form]
        if not selected:
            return await self._page(session, _NO_SESSION_SELECTED)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._reject(session, "sessions")
        for listed in selected:
            await sessions.end_by_key(self.smart, listed.key)
        await self._record(session.user, "sessions")
        return page_handlers.redirect_to(PATH, done="sessions")

    async def start_setup(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        """Show the seed of a new second factor. It counts only after :meth:`confirm_setup`."""
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._reject(session, "second-factor")
        seed = second_factor.new_seed()
        pending = (digest(session.key), second_factor.encrypt_seed(self.smart, seed))
        expires = self.smart.now() + _SETUP_LIFE
        family = session_ends.account_family(session.user.username)
        await self.smart.store.key_values.put(_SETUP_KIND, digest(session.user.subject), msgspec.json.encode(pending), expires, family)
        return self._setup_page(session, seed)

    async def confirm_setup(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        """Enroll the second factor when the first code is correct, and show its recovery codes."""
        text = await self.smart.store.key_values.get(_SETUP_KIND, digest(session.user.subject), self.smart.now())
        owner, encrypted_seed = msgspec.json.decode(text, type=tuple[str, bytes]) if text else ("", b"")
        if owner != digest(session.key):
            return await self._page(session, _SETUP_EXPIRED)
        seed = second_factor.decrypt_seed(self.smart, encrypted_seed)
        if not await second_factor.verify_first_code(self.smart, session.user, form.get("code", ""), seed):
            return self._setup_page(session, seed, _WRONG_FIRST_CODE)
        codes = await second_factor.enroll(self.smart, session.user, seed)
        # The password was given at the start of the setup.
        session, cookie = await self._replace_sessions(request, session.user, session.authenticated, (*session.amr, "otp", "mfa"))
        await self._record(session.user, "second-factor")
        await account_events.record(self.smart.store, session.user, "second", self.smart.now(), browser_names.describe_browser(request))
        page = page_handlers.render(self.smart, "recovery_codes.html", session=session, codes=codes, onward=PATH)
        return page_handlers.with_cookie(self.smart, page, cookie)

    async def remove_second_factor(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if second_factor.is_required(self.smart, session.user):
            return await self._page(session, _REQUIRED)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._reject(session, "second-factor")
        await second_factor.remove(self.smart.store, session.user)
        return await self._finish_change(request, session.user, "second")

    # parts

    async def _finish_change(self, request: Request, user: User, what: str) -> Response:
        """Replace the sessions, record the change, and redirect to the account page."""
        has_factor = await second_factor.find_factor(self.smart, user) is not None  # then its code was just asked for
        _, cookie = await self._replace_sessions(request, user, self.smart.now(), ("pwd", "otp", "mfa") if has_factor else ("pwd",))
        await self._record(user, what)
        await account_events.record(self.smart.store, user, _EVENT_KINDS[what], self.smart.now(), browser_names.describe_browser(request))
        return page_handlers.with_cookie(self.smart, page_handlers.redirect_to(PATH, done=what), cookie)

    async def _replace_sessions(self, request: Request, user: User, authenticated: int, amr: tuple[str, ...]) -> tuple[Session, str]:
        """End all sessions of the account; return a new session for this browser and its cookie."""
        await session_ends.end_all(self.smart.store, user.username)
        browser = browser_names.describe_browser(request)
        cookie = await sessions.start(self.smart, user, browser, authenticated=authenticated, amr=amr)
        return Session(user, self.smart.now(), sessions.form_token(cookie), digest(cookie)), cookie

    async def _reject(self, session: Session, what: str) -> Response:
        await self._record(session.user, what, done=False)
        enrolled = await second_factor.find_factor(self.smart, session.user)
        return await self._page(session, _WRONG_PASSWORD_OR_CODE if enrolled else _WRONG_PASSWORD)

    async def _record(self, user: User, what: str, *, done: bool = True) -> None:
        await self.smart.record(SecurityEvent("change-account", done, user.username, detail={"what": what}))

    def _setup_page(self, session: Session, seed: bytes, problem: str = "") -> Response:
        setup = second_factor.build_setup(self.smart, session.user, seed)
        return page_handlers.render(
            self.smart, "second_factor.html", 400 if problem else 200, session=session, setup=setup, problem=problem
        )

    async def _page(self, session: Session, problem: str = "", done: str = "", apps: Sequence[str] = ()) -> Response:
        """``apps`` are named as still having access, with a button that ends it."""
        smart, user, zone = self.smart, session.user, self.smart.zone
        factor = await second_factor.find_factor(smart, user)
        contact = await contacts.find(smart.store, user)
        open_sessions = await sessions.list_all(smart, user)
        view: dict[str, Any] = {
            "apps": apps,
            "password_set_on": format_instant_date(user.password_set_at, zone) if user.password_set_at else "",
            "enrolled_on": factor and format_instant_date(factor.since, zone),
            "recovery_codes_left": await second_factor.count_recovery_codes(smart, user) if factor else 0,
            "mail": smart.mail.is_available,
            "contact": addresses.masked(contact.address) if contact else "",
            "required": second_factor.is_required(smart, user),
            "activity": describe_events(await account_events.list_events(smart.store, user, smart.now()), zone),
            "asks": (await preferences.load(smart.store, user, smart.now())).ask_since is not None,
            "sessions": [(digest(listed.key), listed, format_instant(listed.started, zone)) for listed in open_sessions],
        }
        return page_handlers.render(smart, "my_account.html", 400 if problem else 200, session=session, problem=problem, done=done, **view)


def describe_events(events: Iterable[AccountEvent], zone: ZoneInfo) -> list[tuple[str, str]]:
    """Return the time and the description of each event, as text for pages."""
    return [(format_instant(event.at, zone), _describe_event(event)) for event in events]


def _describe_event(event: AccountEvent) -> str:
    words = account_events.DESCRIPTIONS[event.kind] + (f", by {event.by}" if event.by else "")
    return words + (f", with {event.browser}" if event.browser else "")


def add_account(routes: APIRouter, smart: SmartContext) -> None:
    """Add the pages under ``/account``."""
    pages = AccountPages(smart)
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, pages.show), methods=["GET"])
    handlers = {
        "/account/password": pages.change_password,
        "/account/results": pages.choose_results,
        "/account/sessions": pages.end_sessions,
        "/account/second": pages.start_setup,
        "/account/second/confirm": pages.confirm_setup,
        "/account/second/end": pages.remove_second_factor,
    }
    for path, handler in handlers.items():
        routes.add_api_route(path, page_handlers.form_handler(smart, PATH, handler), methods=["POST"])
        routes.add_api_route(path, page_handlers.redirect_handler(PATH), methods=["GET"])
