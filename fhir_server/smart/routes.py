"""The router of all SMART and OAuth routes; itself it adds token, revocation, introspection, keys and OpenID discovery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fhir_server.smart.authorize.pages import add_pages
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.registration_pages import add_registration_pages
from fhir_server.smart.clients.registration_routes import MAX_REGISTRATIONS_PER_HOUR, add_registration
from fhir_server.smart.core import health_card_signature, signing_keys
from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse, run_in_thread, to_authlib_request, to_http_response
from fhir_server.smart.core.context import HOUR, MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind, patient_references
from fhir_server.smart.core.signing_keys import KeyUse
from fhir_server.smart.discovery.documents import openid_configuration, server_metadata
from fhir_server.smart.discovery.routes import add_documents
from fhir_server.smart.federation.pages import add_federation
from fhir_server.smart.notices.recovery_pages import add_recovery_pages
from fhir_server.smart.outbound.json_client import JsonClient
from fhir_server.smart.tokens import dpop, pushed_requests, refusals
from fhir_server.smart.tokens.dpop import ProofError, ProvenRequest
from fhir_server.smart.tokens.failure_limit import FailureLimit
from fhir_server.smart.tokens.server import OAuthServer
from fhir_server.smart.tokens.userinfo import add_userinfo
from fhir_server.web.forms import CORS, NO_STORE, PREFLIGHT, BadFormError, address, bad_form_response, read_form

_ENDPOINTS = {"/oauth/token": "token", "/oauth/revoke": "revocation", "/oauth/introspect": "introspection", pushed_requests.PATH: "par"}
_PROVEN = ("token", "par")  # where a key is bound
_NONCE_EXPOSED = {"Access-Control-Expose-Headers": "DPoP-Nonce"}
_AUDITED: dict[str, SecurityEventKind] = {"token": "token", "revocation": "revoke"}
_TOO_MANY = {
    "error": "temporarily_unavailable",
    "error_description": "Too many failed authentications of this client from this address.",
}
_TOO_MANY_PUSHED = {"error": "temporarily_unavailable", "error_description": "Too many pushed requests from this address."}
_METADATA: dict[str, Callable[[SmartContext], dict[str, Any]]] = {
    "/.well-known/openid-configuration": openid_configuration,
    "/.well-known/oauth-authorization-server": server_metadata,
}
_KEYS = {"/oauth/jwks": signing_keys.TOKENS, health_card_signature.PATH: signing_keys.CARDS}


def router(smart: SmartContext, transport: httpx.AsyncBaseTransport | None = None) -> APIRouter:
    """All routes of this package below the origin.  Call :func:`fhir_server.smart.core.signing_keys.prepare` before serving.

    ``transport`` sends the requests to external identity providers; None: over the network.
    """
    routes, server = APIRouter(include_in_schema=False), OAuthServer(smart)
    failures = FailureLimit(smart)
    for path, name in _ENDPOINTS.items():
        routes.add_api_route(path, _endpoint(smart, server, name, failures), methods=["POST"])
    for path, metadata in _METADATA.items():
        routes.add_api_route(path, _document(smart, metadata), methods=["GET"])
    for path, use in _KEYS.items():
        routes.add_api_route(path, _keys(smart, use), methods=["GET"])
    for path in (*_ENDPOINTS, *_METADATA, *_KEYS):
        routes.add_api_route(path, _preflight, methods=["OPTIONS"])

    add_userinfo(routes, smart)
    add_pages(routes, smart, server)
    add_documents(routes, smart)
    registrations = RateLimit("registration", MAX_REGISTRATIONS_PER_HOUR, HOUR)
    add_registration(routes, smart, registrations)
    add_registration_pages(routes, smart, registrations)
    add_recovery_pages(routes, smart)
    add_federation(routes, smart, JsonClient(transport))
    return routes


def _document(smart: SmartContext, metadata: Callable[[SmartContext], dict[str, Any]]) -> Callable[[], Awaitable[Response]]:
    async def handle() -> Response:
        return JSONResponse(metadata(smart), headers=CORS | {"Cache-Control": "public, max-age=300"})

    return handle


def _keys(smart: SmartContext, use: KeyUse) -> Callable[[], Awaitable[Response]]:
    async def handle() -> Response:
        return JSONResponse(await signing_keys.jwks(smart, use), headers=CORS | {"Cache-Control": "public, max-age=300"})

    return handle


def _endpoint(smart: SmartContext, server: OAuthServer, name: str, failures: FailureLimit) -> Callable[[Request], Awaitable[Response]]:
    pushes = RateLimit("pushed request", pushed_requests.PER_ADDRESS, MINUTE)

    async def handle(request: Request) -> Response:
        try:
            pairs = await read_form(request)
        except BadFormError as error:
            return bad_form_response(error, CORS)
        oauth_request = to_authlib_request(request, smart.origin, pairs)
        if wait := await failures.wait_before(oauth_request, address(request)):
            return _too_many(wait)
        if name == "par" and (wait := await pushes.take(smart.store.key_values, address(request), smart.now())):
            return _too_many(wait, _TOO_MANY_PUSHED)
        if name in _PROVEN and "dpop" in request.headers:
            try:
                proof = dpop.verify(smart, ", ".join(request.headers.getlist("dpop")), ProvenRequest(request.method, request.url.path))
            except ProofError as error:
                body = {"error": error.error, "error_description": str(error)}
                return JSONResponse(body, 400, CORS | NO_STORE | _NONCE_EXPOSED | {"DPoP-Nonce": dpop.nonce(smart)})
            oauth_request.jkt, oauth_request.proof_use = proof.jkt, proof.use
        await server.prepare_request(oauth_request)
        response = await run_in_thread(server.endpoint_response, name, oauth_request)
        wait = await failures.count(oauth_request, response, address(request))
        if name in _AUDITED:
            await smart.record(await _security_event(smart, _AUDITED[name], request, oauth_request, response))
        return _too_many(wait) if wait else to_http_response(response, CORS)

    return handle


def _too_many(wait: int, body: dict[str, str] = _TOO_MANY) -> Response:
    return JSONResponse(body, 429, CORS | NO_STORE | retry_after(wait))


async def _security_event(
    smart: SmartContext, kind: SecurityEventKind, request: Request, oauth_request: AuthlibRequest, response: AuthlibResponse
) -> SecurityEvent:
    """The event for the audit log: the grant whose tokens were issued or revoked, or the client and the error."""
    token_grant = oauth_request.token_grant
    if token_grant is not None:
        about, detail = patient_references(token_grant.patient), {"scope": token_grant.scope}
        return SecurityEvent(kind, True, token_grant.username or "", token_grant.client_id, address(request), about, detail)
    client_id = oauth_request.client.get_client_id() if oauth_request.client else oauth_request.form.get("client_id", "")
    client = await clients.find(smart.store, client_id)
    error = response.body.get("error")
    detail = refusals.detail(error, response.body.get("error_description")) if error else {}
    return SecurityEvent(kind, response.status < 400, client_id=client.client_id if client else "", address=address(request), detail=detail)


async def _preflight() -> Response:
    return Response(status_code=204, headers=PREFLIGHT)
