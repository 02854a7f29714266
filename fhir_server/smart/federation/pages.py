"""Signing in elsewhere, as a browser meets it: off to the provider, and back.

Going there needs no form: the answer is good only in the browser that left, and a link is not held to our own site by the
page's policy, as a form with its redirects would be.  But it is a link of our own page that somebody clicked: another site
cannot have people signed in by sending them to a provider that still knows them (OWASP ASVS 5.0, 7.6.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, identity_providers
from fhir_server.smart.accounts.second_factor_pages import after_first_factor, return_path
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.federation.sign_in_flow import Continuation, SignInFailedError, SignInFlow
from fhir_server.smart.outbound.json_client import JsonClient
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE, BadFormError, address, fields, local_path, with_headers

PER_ADDRESS: Final = 60  # departures a minute: each keeps something here and asks the provider something
_TOO_MANY: Final = "There have been too many sign-ins from your address. Wait a minute, then try again."
_MALFORMED: Final = "The answer of the other sign-in cannot be read. Start again."


def add_federation(routes: APIRouter, smart: SmartContext, outside: JsonClient) -> None:
    """Add the routes ``/sign-in/with/{provider}`` and ``/sign-in/from/{provider}``."""
    room = SignInFlow(smart, outside)

    limit = RateLimit(PER_ADDRESS, MINUTE)

    async def leave(request: Request) -> Response:
        given, cookie = request.query_params, cookies.session_cookie(smart, request)
        who, now = address(request), smart.now()
        if not limit.count_if_allowed(who, now):
            return with_headers(render(smart, "error.html", 429, text=_TOO_MANY, detail=""), limit.headers(who, now))
        way = Continuation(given.get("request", ""), local_path(given.get("next", "")))
        if not cookie or not cookies.is_same_site(request):
            return _to("/sign-in?" + urlencode({"request": way.request, "next": way.next}))
        return _to(await room.start(request.path_params["id"], cookie, way))

    async def arrive(request: Request) -> Response:
        cookie = cookies.session_cookie(smart, request)
        try:
            pairs = fields(request.url.query)
        except BadFormError:
            raise SignInFailedError(_MALFORMED) from None
        way_in = {"provider": request.path_params["id"]}
        try:
            user, way = await room.finish(request.path_params["id"], cookie, pairs)
        except SignInFailedError:
            await smart.record(SecurityEvent("sign-in", False, address=address(request), detail=way_in))
            raise
        await smart.record(SecurityEvent("sign-in", username=user.username, address=address(request), detail=way_in))
        return await after_first_factor(smart, request, user, return_path(way.request, way.next))

    def explained(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except SignInFailedError as failed:
                provider = await identity_providers.find(smart.store, request.path_params["id"])
                back = urlencode({"request": failed.way.request, "next": failed.way.next})
                label = provider.label if provider else ""
                return render(smart, "federation.html", failed.status, text=str(failed), sub=failed.sub, label=label, back=back)

        return answer

    routes.add_api_route("/sign-in/with/{id}", explained(leave), methods=["GET"])
    routes.add_api_route("/sign-in/from/{id}", explained(arrive), methods=["GET"])


def _to(url: str) -> Response:
    # Not RedirectResponse, which re-quotes: an endpoint is used exactly as its provider states it.
    return Response(None, 303, NO_STORE | {"Location": url, "Referrer-Policy": "no-referrer"})
