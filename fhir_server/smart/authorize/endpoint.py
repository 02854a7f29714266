"""``/oauth/authorize``: validates an authorization request, and stores it for the pages or answers it without one (``prompt=none``)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import OAuth2Error
from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.authorize import remembered_consents, requests, silent, texts
from fhir_server.smart.authorize.decisions import note_sign_in, record_decision
from fhir_server.smart.authorize.form_post import form_post_page
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse, Pairs, run_in_thread, to_authlib_request, to_http_response
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.pages import render
from fhir_server.smart.tokens import pushed_requests, request_limits
from fhir_server.smart.tokens.refusals import refusal_detail
from fhir_server.smart.tokens.server import OAuthServer
from fhir_server.web.forms import NO_STORE, BadFormError, address, fields, read_form, with_headers

PATH: Final = "/oauth/authorize"
PER_ADDRESS: Final = 120  # requests a minute; a hospital ward or a family shares one address


class AuthorizationEndpoint:
    """The endpoint of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext, server: OAuthServer) -> None:
        self._smart = smart
        self._server = server
        self._limit = RateLimit("authorization request", PER_ADDRESS, MINUTE)
        self._refusals = RateLimit("refused authorization request", PER_ADDRESS, MINUTE)
        self._parked = request_limits.parked_bytes()

    async def handle(self, request: Request) -> Response:
        """Validate the request, store it, and redirect to the first page; or answer it."""
        try:
            pairs: Pairs | None = await read_form(request) if request.method == "POST" else fields(request.url.query)
        except BadFormError as error:
            return self._error(str(error))
        oauth_request = to_authlib_request(request, self._smart.origin, pairs or ())
        if pushed_requests.is_pushed(oauth_request.form.get("request_uri", "")):
            client_id = oauth_request.form.get("client_id", "")
            pairs = await pushed_requests.take(self._smart, oauth_request.form["request_uri"], client_id)
            if pairs is None:
                return self._error(texts.EXPIRED)
            oauth_request = to_authlib_request(request, self._smart.origin, pairs)
            oauth_request.is_pushed = True
        parameters = oauth_request.form
        known = tuple((name, value) for name, value in pairs or () if name in request_limits.PARAMETERS)
        try:
            await run_in_thread(self._server.validate_request, oauth_request)
            request_limits.check_lengths(known, parameters["redirect_uri"], parameters.get("state", ""))
        except OAuth2Error as error:
            return await self._refuse(request, oauth_request, error)
        values, where, now = self._smart.store.key_values, address(request), self._smart.now()
        is_silent = parameters.get("prompt", "").strip() == "none"
        size = 0 if is_silent else sum(len(name) + len(value.encode()) for name, value in known)
        if wait := await self._limit.take(values, where, now) or await self._parked.take(values, where, size, now):
            return with_headers(self._error(texts.TOO_MANY, status=429), retry_after(wait))
        authorization = AuthorizationRequest(known, parameters["client_id"], parameters["redirect_uri"], oauth_request.scope, now)
        try:
            authorization = await silent.expect_hinted(self._smart, authorization, parameters.get("id_token_hint", ""))
        except OAuth2Error as error:
            return await self._refuse(request, oauth_request, error)
        if is_silent:
            return await self._answer_silently(request, oauth_request, authorization)
        location = "/oauth/continue?" + urlencode({"request": await requests.save(self._smart, authorization)})
        return Response(None, 303, NO_STORE | {"Location": location})

    async def _answer_silently(self, request: Request, oauth_request: AuthlibRequest, authorization: AuthorizationRequest) -> Response:
        """Answer with a code if the person is signed in and has allowed this before, else with an error."""
        session = await sessions.current(self._smart, cookies.session_cookie(self._smart, request), is_active=False)
        try:
            decision = await silent.decide(self._smart, authorization, session)
        except OAuth2Error as error:
            error.state = oauth_request.form.get("state")
            # In a window this would be an open redirect to an app that anybody could have registered; in a frame it is none.
            is_window = request.headers.get("sec-fetch-dest", "document") == "document"
            if is_window and error.error != "interaction_required":
                return await self._refuse(request, oauth_request, error)
            await self._record_refusal(request, oauth_request, error)
            return self._send(oauth_request, self._server.error_response(oauth_request, error))
        response = await run_in_thread(self._server.authorization_response, oauth_request, decision)
        if session is None or not await remembered_consents.still_stands(self._smart, decision.token_grant, session):
            ended = silent.refusal("consent_required", authorization, oauth_request.form.get("state"))
            await self._record_refusal(request, oauth_request, ended)
            return self._send(oauth_request, self._server.error_response(oauth_request, ended))
        await record_decision(self._smart, authorization, session, decision, is_silent=True)
        await note_sign_in(self._smart, session, decision)
        return self._send(oauth_request, response)

    async def _refuse(self, request: Request, oauth_request: AuthlibRequest, error: OAuth2Error) -> Response:
        """Answer the client with an error; the person, if the client may not get it, or anybody could have registered it.

        A redirect URI that anyone could have chosen gets no redirect that nobody decided on (RFC 9700 4.11.2).
        """
        response = self._server.error_response(oauth_request, error)
        client = await self._record_refusal(request, oauth_request, error)
        is_self_registered = client is not None and bool(client.registration_token_hash)
        if response.location and not is_self_registered:
            return self._send(oauth_request, response)
        return self._error(texts.INVALID_REQUEST, error.description or "")

    async def _record_refusal(self, request: Request, oauth_request: AuthlibRequest, error: OAuth2Error) -> Client | None:
        """Record why a request was refused: a refusal by redirect is seen by no person.  Not more of them than one address may send.

        Only a registered client, which is returned, is named.  The cause is an error code and a text of this server, nothing that the
        sender chose.
        """
        client, where = await clients.find(self._smart.store, oauth_request.form.get("client_id", "")), address(request)
        if not await self._refusals.take(self._smart.store.key_values, where, self._smart.now()):
            named = client.client_id if client else ""
            await self._smart.record(SecurityEvent("allow-app", False, "", named, where, detail=refusal_detail(error)))
        return client

    def _send(self, oauth_request: AuthlibRequest, response: AuthlibResponse) -> Response:
        return form_post_page(self._smart, oauth_request, response) or to_http_response(response, {})

    def _error(self, text: str, detail: str = "", status: int = 400) -> Response:
        return render(self._smart, "error.html", status, text=text, detail=detail, link=None)


def add_authorization_endpoint(routes: APIRouter, smart: SmartContext, server: OAuthServer) -> None:
    """Add the endpoint's route."""
    routes.add_api_route(PATH, AuthorizationEndpoint(smart, server).handle, methods=["GET", "POST"])
