"""``/oauth/logout``: an app asks to sign the person out (OpenID Connect RP-Initiated Logout 1.0).

An id_token of the browser's session, which only the app of that sign-in has, signs the person out at once.  Any other request asks
the person first, so that no site can sign people out.  The browser goes on to a registered URL only: by itself if the id_token
matched or the person confirmed, by a link if neither is so, because anybody could have sent the browser here.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from authlib.common.urls import add_params_to_uri
from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize.sign_out_pages import SignOutPages
from fhir_server.smart.clients import clients, subjects
from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import MINUTE, REQUEST_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.pages import render
from fhir_server.smart.tokens import id_tokens
from fhir_server.web.forms import FORGED_FORM, NO_STORE, BadFormError, Form, address, fields, read_form, with_headers

PATH: Final = "/oauth/logout"
CONFIRM: Final = "/oauth/logout/confirm"
PER_ADDRESS: Final = 120  # requests a minute
_KIND: Final = "logout-request"
_GONE: Final = "This request to sign out has expired. If you are still signed in, use Sign out at the top of the page."
_INVALID: Final = "The app sent an invalid request to sign you out. If you are still signed in, use Sign out at the top of the page."
_TOO_MANY: Final = "Too many requests from your network. Wait a minute and try again."
_HOME: Final = ("Go to the start page", "/")


class _LogoutRequest(msgspec.Struct, frozen=True):
    """``back`` is the registered URL with the state, ``sub`` and ``sid`` are of the id_token ("": none)."""

    client_id: str = ""
    back: str = ""
    sub: str = ""
    sid: str = ""


class LogoutPages:
    """The pages of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._sign_outs = SignOutPages(smart)
        self._limit = RateLimit("sign-out by an app", PER_ADDRESS, MINUTE)

    async def begin(self, request: Request) -> Response:
        """Store the request and go on with GET: a form that another site posts brings no cookie."""
        try:
            form = await read_form(request) if request.method == "POST" else fields(request.url.query)
            logout = await self._read(form)
        except (BadFormError, ValueError):
            return self._error(_INVALID)
        if wait := await self._limit.take(self._smart.store.key_values, address(request), self._smart.now()):
            return with_headers(self._error(_TOO_MANY, 429), retry_after(wait))
        handle = new_secret()
        ends = self._smart.now() + REQUEST_LIFE
        await self._smart.store.key_values.put(_KIND, digest(handle), msgspec.json.encode(logout), ends)
        return Response(None, 303, NO_STORE | {"Location": f"{CONFIRM}?{urlencode({'request': handle})}"})

    async def show(self, request: Request) -> Response:
        """Sign out, or ask whether to."""
        handle = request.query_params.get("request", "")
        logout, session = await self._find(handle), await sessions.current(self._smart, cookies.session_cookie(self._smart, request))
        if logout is None:
            return self._error(_GONE)
        client = await clients.find(self._smart.store, logout.client_id)
        if session is not None and not await self._is_of_session(logout, session):
            names = await self._names(logout)
            return render(self._smart, "confirm_sign_out.html", session=session, handle=handle, **names)
        if session is None:
            is_trusted = bool(logout.sub) and client is not None and not client.registration_token_hash
            return await self._signed_out_page(logout, onward=False) if not is_trusted or not logout.back else _to(logout.back)
        return await self._sign_outs.end_session(request, session, logout.client_id, _to(logout.back) if logout.back else None)

    async def submit(self, request: Request) -> Response:
        """The person's answer."""
        try:
            form = dict(await read_form(request))
        except BadFormError as error:
            return self._error(str(error))
        if not cookies.is_own_form(self._smart, request, form.get("token", "")):
            return self._error(FORGED_FORM, 403)
        logout, session = (
            await self._find(form.get("request", "")),
            await sessions.current(self._smart, cookies.session_cookie(self._smart, request)),
        )
        if logout is None:
            return self._error(_GONE)
        if form.get("decision") != "sign-out":
            return _to("/")
        if session is None:
            return await self._signed_out_page(logout, onward=True)
        # A page that goes on by itself, and not a redirect: browsers hold what follows a form to its ``form-action``.
        page = await self._signed_out_page(logout, onward=True) if logout.back else None
        return await self._sign_outs.end_session(request, session, logout.client_id, page)

    async def _read(self, form: Form) -> _LogoutRequest:
        """Raises ValueError for a repeated parameter, and for a client id that is not the id_token's."""
        values = {name: value for name, value in form if value}
        if len({name for name, _ in form}) != len(form):
            raise ValueError
        hint = await id_tokens.read_hint(self._smart, values.get("id_token_hint", "")) if "id_token_hint" in values else None
        if "id_token_hint" in values and hint is None:
            return _LogoutRequest()  # whoever sent it: the person is asked, and stays here
        client = hint.client if hint else await clients.find(self._smart.store, values.get("client_id", ""))
        if hint and values.get("client_id", hint.client.client_id) != hint.client.client_id:
            raise ValueError
        back = values.get("post_logout_redirect_uri", "")
        client = client if client and client.redirect_uris else None  # a backend signs nobody in
        if client is None or back not in client.options.post_logout_redirect_uris:
            back = ""
        if back and "state" in values:
            back = str(add_params_to_uri(back, [("state", values["state"])]))
        return _LogoutRequest(client.client_id if client else "", back, hint.sub if hint else "", hint.sid if hint else "")

    async def _is_of_session(self, logout: _LogoutRequest, session: Session) -> bool:
        client = await clients.find(self._smart.store, logout.client_id)
        if client is None or not logout.sub:
            return False
        sid = logout_queue.session_id(session.key, client.client_id)
        return logout.sid == sid and await subjects.account_subject(self._smart.store, client, logout.sub) == session.user.subject

    async def _find(self, handle: str) -> _LogoutRequest | None:
        text = await self._smart.store.key_values.get(_KIND, digest(handle), self._smart.now())
        return None if text is None else msgspec.json.decode(text, type=_LogoutRequest)

    async def _signed_out_page(self, logout: _LogoutRequest, *, onward: bool) -> Response:
        return render(self._smart, "signed_out.html", back=logout.back, onward=onward and bool(logout.back), **await self._names(logout))

    async def _names(self, logout: _LogoutRequest) -> dict[str, Any]:
        client = await clients.find(self._smart.store, logout.client_id)
        if client is None:
            return {"client_name": "", "client_host": ""}
        return {"client_name": client.name, "client_host": client.redirect_host(logout.back or client.redirect_uris[0])}

    def _error(self, text: str, status: int = 400) -> Response:
        return render(self._smart, "error.html", status, text=text, detail="", link=_HOME)


def _to(url: str) -> Response:
    # Not RedirectResponse, which quotes the URL again: a registered one is used exactly.
    return Response(None, 303, NO_STORE | {"Location": url, "Referrer-Policy": "no-referrer"})


def add_logout_pages(routes: APIRouter, smart: SmartContext) -> None:
    """Add the pages' routes."""
    pages = LogoutPages(smart)
    routes.add_api_route(PATH, pages.begin, methods=["GET", "POST"])
    routes.add_api_route(CONFIRM, pages.show, methods=["GET"])
    routes.add_api_route(CONFIRM, pages.submit, methods=["POST"])
