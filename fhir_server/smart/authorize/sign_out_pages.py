"""Sign-out, and the page after it, which names the apps that still have access and offers to end them."""

from __future__ import annotations

from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.smart.accounts import cookies, second_factor_pending, sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import open_apps
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE, Form, address

PATH: Final = "/signed-out"
END_APPS: Final = "/signed-out/apps"


class SignOutPages:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    async def sign_out(self, request: Request, form: Form) -> Response:
        session = await sessions.current(self._smart, cookies.session_cookie(self._smart, request))
        if session is not None:
            return await self.end_session(request, session)
        await sessions.end(self._smart, cookies.session_cookie(self._smart, request))
        return self._forget(RedirectResponse(PATH, 303, headers=NO_STORE))

    async def end_session(self, request: Request, session: Session, client_id: str = "", onward: Response | None = None) -> Response:
        """End the browser's session, which the app ``client_id`` asked for ("": the person).

        The answer is ``onward``, or leads to the page that names the apps which still have access.
        """
        await sessions.end(self._smart, cookies.session_cookie(self._smart, request))
        where = address(request) if client_id else ""
        await self._smart.record(SecurityEvent("sign-out", username=session.user.username, client_id=client_id, address=where))
        response = onward or RedirectResponse(PATH, 303, headers=NO_STORE)
        if onward is None and (apps := await open_apps.left_open(self._smart, session)):
            return cookies.with_session_cookie(self._smart, response, await open_apps.offer(self._smart, session.user.username, apps))
        return self._forget(response)

    def _forget(self, response: Response) -> Response:
        response.delete_cookie(**cookies.session_cookie_attributes(self._smart))
        return response

    async def show(self, request: Request) -> Response:
        cookie = cookies.session_cookie(self._smart, request)
        offer = await open_apps.show_offer(self._smart, cookie)
        named = offer is not None and not offer.named
        listed = enumerate(offer.apps if offer else ())
        apps = [(str(number), await self._name(app.client_id) if named else "", app.lasts) for number, app in listed]
        ended = "ended" in request.query_params
        return render(self._smart, "signed_out.html", apps=apps, named=named, ended=ended, token=sessions.form_token(cookie))

    async def end_apps(self, request: Request, form: Form) -> Response:
        """End the access of the chosen apps.  Works once for a sign-out, in its browser."""
        offer = await open_apps.take_offer(self._smart, cookies.session_cookie(self._smart, request))
        chosen = {value for name, value in form if name == "app"}
        for number, app in enumerate(offer.apps if offer else ()):
            if offer is not None and str(number) in chosen:
                await self._smart.store.key_values.delete_family(app.family)
                about = patient_references(app.patient)
                await self._smart.record(SecurityEvent("end-app", True, offer.username, app.client_id, about=about))
        return RedirectResponse(f"{PATH}?ended=yes" if chosen and offer else PATH, 303, headers=NO_STORE)

    async def already_signed_out(self, request: Request) -> bool:
        """Whether nobody is signed in in this browser."""
        cookie = cookies.session_cookie(self._smart, request)
        return not (await sessions.current(self._smart, cookie) or await second_factor_pending.find(self._smart, cookie))

    async def _name(self, client_id: str) -> str:
        client = await clients.find(self._smart.store, client_id)
        return client.name if client else client_id
