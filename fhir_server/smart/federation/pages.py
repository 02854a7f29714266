"""Routes for sign-in with an external OpenID provider: the redirect to the provider and the callback.

The redirect is a link, not a form: the page's Content-Security-Policy would block a form that redirects to another site.
The link works only from pages of this server, so another site cannot start a sign-in with a provider where the user has
a session (OWASP ASVS 5.0, 7.6.2).  The callback works only in the browser that started the sign-in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, identity_providers
from fhir_server.smart.accounts.second_factor_pages import after_first_factor, return_path
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.federation.sign_in_flow import Continuation, SignInFailedError, SignInFlow
from fhir_server.smart.outbound.json_client import JsonClient
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE, BadFormError, address, fields, local_path, with_headers

PER_ADDRESS: Final = 60  # redirects a minute: each stores a record and sends a request to the provider
_TOO_MANY: Final = "Too many sign-ins from your network. Wait a minute, then try again."
_MALFORMED: Final = "The response from the sign-in provider cannot be read. Start again."


def add_federation(routes: APIRouter, smart: SmartContext, json_client: JsonClient) -> None:
    """Add the routes ``/sign-in/with/{provider}`` and ``/sign-in/from/{provider}``."""
    flow = SignInFlow(smart, json_client)
    limit = RateLimit("sign-in at a provider", PER_ADDRESS, MINUTE)

    async def redirect(request: Request) -> Response:
        query, cookie = request.query_params, cookies.session_cookie(smart, request)
        client, now = address(request), smart.now()
        if wait := await limit.take(smart.store.key_values, client, now):
            return with_headers(render(smart, "error.html", 429, text=_TOO_MANY, detail=""), retry_after(wait))
        target = Continuation(query.get("request", ""), local_path(query.get("next", "")))
        if not cookie or not cookies.is_same_site(request):
            return _to("/sign-in?" + urlencode({"request": target.request, "next": target.next}))
        return _to(await flow.start(request.path_params["id"], cookie, target))

    async def receive(request: Request) -> Response:
        cookie = cookies.session_cookie(smart, request)
        try:
            pairs = fields(request.url.query)
        except BadFormError:
            raise SignInFailedError(_MALFORMED) from None
        detail = {"provider": request.path_params["id"]}
        try:
            user, target = await flow.finish(request.path_params["id"], cookie, pairs)
        except SignInFailedError:
            await smart.record(SecurityEvent("sign-in", False, address=address(request), detail=detail))
            raise
        await smart.record(SecurityEvent("sign-in", username=user.username, address=address(request), detail=detail))
        path = return_path(target.request, target.next)
        return await after_first_factor(smart, request, user, path, target.authenticated, ("fed",))

    def with_error_page(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignInFailedError as error:
                provider = await identity_providers.find(smart.store, request.path_params["id"])
                back = urlencode({"request": error.continuation.request, "next": error.continuation.next})
                label = provider.label if provider else ""
                return render(smart, "federation.html", error.status, text=str(error), sub=error.sub, label=label, back=back)

        return handle

    routes.add_api_route("/sign-in/with/{id}", with_error_page(redirect), methods=["GET"])
    routes.add_api_route("/sign-in/from/{id}", with_error_page(receive), methods=["GET"])


def _to(url: str) -> Response:
    # Not RedirectResponse, which percent-encodes again: the endpoint is used exactly as the provider publishes it.
    return Response(None, 303, NO_STORE | {"Location": url, "Referrer-Policy": "no-referrer"})
