"""A person's own account: password, second step, and where it is signed in.  Every change wants the password once more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Request, Response

from fhir_server.portal import page_handlers
from fhir_server.smart.accounts import account_events, browser_names, reauthentication, second_factor, sessions, users
from fhir_server.smart.accounts.account_events import AccountEvent
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SmartContext, digest
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.web.dates import format_instant, format_instant_date

PATH: Final = "/account"
_NOT_YOU: Final = "Your present password is not right, or there were too many attempts. Nothing was changed. Check it, or wait 15 minutes."
_NEITHER: Final = (
    "Your present password or the code is not right, or there were too many attempts. Nothing was changed. A code counts once: wait for "
    "the next one, or 15 minutes."
)
_DIFFER: Final = "The new password was not written the same way twice. Nothing was changed."
_NONE_CHOSEN: Final = "Choose at least one of the sign-ins to end."
_WRONG_CODE: Final = "This code is not right or has run out. Wait for the next one and try again."
_NOT_BEGUN: Final = "Setting up took too long. Begin again."
_NEEDED: Final = "A work account needs its second step. You can set it up anew, but not take it away."
_DONE: Final = {
    "password": "Your password has been changed. Everywhere else you have been signed out.",
    "sessions": "The sign-ins you chose have ended.",
    "second": "Your second step has been taken away. Everywhere else you have been signed out.",
}
_LATELY: Final[dict[str, account_events.EventKind]] = {"password": "password", "second": "second-ended"}
_OFFER: Final = "second-factor-offer"
_OFFER_LIFE: Final = 10 * MINUTE


class Account:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self.smart = smart

    async def show(self, request: Request, session: Session) -> Response:
        return await self._page(session, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def password(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if form.get("new", "") != form.get("again", ""):
            return await self._page(session, _DIFFER)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._refused(session, "password")
        try:
            user = await users.set_password(self.smart.store, session.user, form.get("new", ""), self.smart.passwords, self.smart.now())
        except (ValueError, TimeoutError) as error:
            return await self._page(session, str(error) or _NOT_YOU)
        return await self._changed(request, user, "password")

    async def end_sessions(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        chosen = [one for one in await sessions.list_all(self.smart, session.user) if f"end-{digest(one.key)}" in form]
        if not chosen:
            return await self._page(session, _NONE_CHOSEN)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._refused(session, "sessions")
        for one in chosen:
            await sessions.end_by_key(self.smart, one.key)
        await self._note(session.user, "sessions")
        return page_handlers.to(PATH, done="sessions")

    async def begin(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._refused(session, "second-factor")
        seed = second_factor.new_seed()
        offer = (digest(session.key), second_factor.encrypt_seed(self.smart, seed))
        expires = self.smart.now() + _OFFER_LIFE
        family = users.session_family(session.user.username)
        await self.smart.store.key_values.put(_OFFER, digest(session.user.subject), msgspec.json.encode(offer), expires, family)
        return self._setting_up(session, seed)

    async def confirm(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        kept = await self.smart.store.key_values.get(_OFFER, digest(session.user.subject), self.smart.now())
        owner, sealed = msgspec.json.decode(kept, type=tuple[str, bytes]) if kept else ("", b"")
        if owner != digest(session.key):
            return await self._page(session, _NOT_BEGUN)
        seed = second_factor.decrypt_seed(self.smart, sealed)
        if not await second_factor.verify_first_code(self.smart, session.user, form.get("code", ""), seed):
            return self._setting_up(session, seed, _WRONG_CODE)
        codes = await second_factor.enroll(self.smart, session.user, seed)
        session, cookie = await self._alone(request, session.user)
        await self._note(session.user, "second-factor")
        await account_events.record(self.smart.store, session.user, "second", self.smart.now(), browser_names.describe_browser(request))
        page = page_handlers.page(self.smart, "recovery_codes.html", session=session, codes=codes, onward=PATH)
        return page_handlers.with_cookie(self.smart, page, cookie)

    async def take_away(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if second_factor.is_required(self.smart, session.user):
            return await self._page(session, _NEEDED)
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            return await self._refused(session, "second-factor")
        await second_factor.remove(self.smart.store, session.user)
        return await self._changed(request, session.user, "second")

    # parts

    async def _changed(self, request: Request, user: User, what: str) -> Response:
        _, cookie = await self._alone(request, user)
        await self._note(user, what)
        await account_events.record(self.smart.store, user, _LATELY[what], self.smart.now(), browser_names.describe_browser(request))
        return page_handlers.with_cookie(self.smart, page_handlers.to(PATH, done=what), cookie)

    async def _alone(self, request: Request, user: User) -> tuple[Session, str]:
        """End all of the account's sessions and begin one anew in this browser."""
        await self.smart.store.key_values.delete_family(users.session_family(user.username))
        cookie = await sessions.start(self.smart, user, browser_names.describe_browser(request))
        return Session(user, self.smart.now(), sessions.form_token(cookie), digest(cookie)), cookie

    async def _refused(self, session: Session, what: str) -> Response:
        await self._note(session.user, what, done=False)
        return await self._page(session, _NEITHER if await second_factor.find_factor(self.smart, session.user) else _NOT_YOU)

    async def _note(self, user: User, what: str, *, done: bool = True) -> None:
        await self.smart.record(SecurityEvent("change-account", done, user.username, detail={"what": what}))

    def _setting_up(self, session: Session, seed: bytes, problem: str = "") -> Response:
        setup = second_factor.build_setup(self.smart, session.user, seed)
        return page_handlers.page(self.smart, "second_factor.html", 400 if problem else 200, session=session, setup=setup, problem=problem)

    async def _page(self, session: Session, problem: str = "", done: str = "") -> Response:
        factor, zone = await second_factor.find_factor(self.smart, session.user), self.smart.zone
        view: dict[str, Any] = {
            "since": format_instant_date(session.user.password_set_at, zone) if session.user.password_set_at else "",
            "factor": factor and format_instant_date(factor.since, zone),
            "codes_left": await second_factor.count_recovery_codes(self.smart, session.user) if factor else 0,
            "needed": second_factor.is_required(self.smart, session.user),
            "lately": describe_events(await account_events.list_events(self.smart.store, session.user, self.smart.now()), zone),
            "sessions": [
                (digest(one.key), one, format_instant(one.started, zone)) for one in await sessions.list_all(self.smart, session.user)
            ],
        }
        return page_handlers.page(
            self.smart, "my_account.html", 400 if problem else 200, session=session, problem=problem, done=done, **view
        )


def describe_events(events: Iterable[AccountEvent], zone: ZoneInfo) -> list[tuple[str, str]]:
    """When each happened, and what, in words."""
    return [
        (format_instant(one.at, zone), account_events.DESCRIPTIONS[one.kind] + (f", with {one.browser}" if one.browser else ""))
        for one in events
    ]


def add_account(routes: APIRouter, smart: SmartContext) -> None:
    """Add the pages under ``/account``."""
    here = Account(smart)
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, here.show), methods=["GET"])
    steps = {
        "/account/password": here.password,
        "/account/sessions": here.end_sessions,
        "/account/second": here.begin,
        "/account/second/confirm": here.confirm,
        "/account/second/end": here.take_away,
    }
    for path, sent in steps.items():
        routes.add_api_route(path, page_handlers.form_handler(smart, PATH, sent), methods=["POST"])
        routes.add_api_route(path, page_handlers.back(PATH), methods=["GET"])
