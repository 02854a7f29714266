"""The page ``/forgot``: ask for an e-mail with one's user name and a code for a new password.

The answer is the same, byte for byte and in what it costs, whether an account has the address or not: what there is to do is done later,
off the request (:mod:`~fhir_server.smart.notices.delivery`).
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.accounts.visitor_forms import read_own_form
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import DAY, HOUR, SmartContext, digest, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.notices import addresses
from fhir_server.smart.pages import render
from fhir_server.web.forms import address, with_headers

PATH: Final = "/forgot"
PER_NETWORK: Final = 20  # requests an hour; a ward or a family shares one address of the network
PER_ADDRESS: Final = 3  # messages a day to an e-mail address; what is beyond gets the same page, and no message
_TOO_MANY: Final = "Too many attempts from your network. Try again in an hour."


class RecoveryPages:
    """The page of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._by_network = RateLimit("recovery", PER_NETWORK, HOUR)
        self._by_address = RateLimit("recovery by address", PER_ADDRESS, DAY)

    async def show(self, request: Request) -> Response:
        return self._form(request)

    async def submit(self, request: Request) -> Response:
        form = await read_own_form(self._smart, request)
        if isinstance(form, Response):
            return form
        values, now = self._smart.store.key_values, self._smart.now()
        if wait := await self._by_network.take(values, address(request), now):
            return with_headers(render(self._smart, "error.html", 429, text=_TOO_MANY, detail=""), retry_after(wait))
        try:
            typed = addresses.parse(form.get("address", ""))
        except ValueError as error:
            return self._form(request, str(error))
        if not await self._by_address.take(values, digest(addresses.comparable(typed)), now):
            await notice_queue.add(self._smart.store, "recovery", address=typed)
        return render(self._smart, "forgot_sent.html")

    def _form(self, request: Request, problem: str = "") -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        page = render(self._smart, "forgot.html", 400 if problem else 200, token=sessions.form_token(cookie), problem=problem)
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def add_recovery_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's routes, if the server sends e-mail."""
    if not smart.mail.is_available:
        return
    pages = RecoveryPages(smart)
    routes.add_api_route(PATH, pages.show, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
