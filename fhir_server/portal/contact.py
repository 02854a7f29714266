"""The e-mail address of an account, for codes and notices: set it, enter its code, remove it.  A change asks for the password again."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.portal import page_handlers
from fhir_server.smart.accounts import reauthentication, second_factor
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import HOUR, SmartContext, digest
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.notices import addresses, contacts
from fhir_server.web.forms import with_headers

PATH: Final = "/account/contact"
CODES_AN_HOUR: Final = 5
_WRONG_PASSWORD: Final = "Your current password or the code is wrong, or there were too many attempts. Nothing was changed."
_WRONG_CODE: Final = (
    "The code is wrong, expired or already used, or there were too many attempts. Check it, wait 15 minutes, or have a new one sent."
)
_TOO_MANY: Final = "Too many codes were sent. Try again in an hour."
_DONE: Final = {
    "sent": "A code is on its way. Enter it below.",
    "verified": "The address is verified. Codes and notices go there from now on.",
    "removed": "The address was removed.",
}


class ContactPages:
    """Handlers of the page ``/account/contact``."""

    def __init__(self, smart: SmartContext) -> None:
        self.smart = smart
        self._codes = RateLimit("contact codes", CODES_AN_HOUR, HOUR)

    async def show(self, request: Request, session: Session) -> Response:
        return await self._page(session, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def propose(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        """Send a code to a new address.  The address in use stays until the code is entered."""
        try:
            address = addresses.parse(form.get("address", ""))
        except ValueError as error:
            return await self._page(session, str(error))
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            await self._record(session, "contact", done=False)
            return await self._page(session, _WRONG_PASSWORD)
        if wait := await self._codes.take(self.smart.store.key_values, digest(session.user.subject), self.smart.now()):
            return with_headers(await self._page(session, _TOO_MANY, status=429), retry_after(wait))
        await contacts.propose(self.smart.store, session.user, address, self.smart.now())
        await self._record(session, "contact-proposed")
        return page_handlers.redirect_to(PATH, done="sent")

    async def confirm(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        is_right = await contacts.confirm(self.smart.store, session.user, form.get("code", ""), self.smart.now())
        await self._record(session, "contact", done=is_right)
        return page_handlers.redirect_to(PATH, done="verified") if is_right else await self._page(session, _WRONG_CODE)

    async def remove(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        if not await reauthentication.reauthenticate(self.smart, request, session.user, form):
            await self._record(session, "contact", done=False)
            return await self._page(session, _WRONG_PASSWORD)
        await contacts.remove(self.smart.store, session.user, self.smart.now())
        await self._record(session, "contact")
        return page_handlers.redirect_to(PATH, done="removed")

    async def _record(self, session: Session, what: str, *, done: bool = True) -> None:
        await self.smart.record(SecurityEvent("change-account", done, session.user.username, detail={"what": what}))

    async def _page(self, session: Session, problem: str = "", done: str = "", status: int = 400) -> Response:
        contact = await contacts.find(self.smart.store, session.user)
        pending = await contacts.find_pending(self.smart.store, session.user, self.smart.now())
        view = {
            "address": addresses.masked(contact.address) if contact else "",
            "pending": addresses.masked(pending.address) if pending else "",
            "enrolled_on": await second_factor.find_factor(self.smart, session.user) is not None,
        }
        return page_handlers.render(
            self.smart, "contact.html", status if problem else 200, session=session, problem=problem, done=done, **view
        )


def add_contact(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes, if the server sends e-mail."""
    if not smart.mail.is_available:
        return
    pages = ContactPages(smart)
    routes.add_api_route(PATH, page_handlers.show_handler(smart, PATH, pages.show), methods=["GET"])
    forms = {PATH: pages.propose, f"{PATH}/confirm": pages.confirm, f"{PATH}/end": pages.remove}
    for path, handler in forms.items():
        routes.add_api_route(path, page_handlers.form_handler(smart, PATH, handler), methods=["POST"])
        if path != PATH:
            routes.add_api_route(path, page_handlers.redirect_handler(PATH), methods=["GET"])
