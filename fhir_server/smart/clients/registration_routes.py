"""``/oauth/register``: dynamic client registration (RFC 7591) and management of a registration (RFC 7592)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fhir_server.smart.clients import clients, initial_access_tokens, registration
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.clients.registration import RegisteredClient, RegistrationError
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind
from fhir_server.web.forms import CORS, MAX_FORM, NO_STORE, PREFLIGHT, address, with_headers

PATH: Final = "/oauth/register"
MAX_REGISTRATIONS_PER_HOUR: Final = 30  # from one IP address
_HEADERS: Final = CORS | NO_STORE
_PREFLIGHT: Final = PREFLIGHT | {"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS"}


class InvalidBodyError(ValueError):
    """The request body is not JSON, or too large."""


class RegistrationEndpoints:
    """The handlers of one :class:`SmartContext`.  ``limit`` is shared with the registration form."""

    def __init__(self, smart: SmartContext, limit: RateLimit) -> None:
        self._smart = smart
        self._limit = limit

    async def create(self, request: Request) -> Response:
        """``POST``: register a client.  Needs an initial access token except in a demo."""
        token = _bearer(request)
        if (token or not self._smart.is_demo) and not await initial_access_tokens.is_valid(self._smart.store, token, self._smart.now()):
            return _unauthorized()
        if wait := await self._limit.take(self._smart.store.key_values, address(request), self._smart.now()):
            too_many = _error(429, "temporarily_unavailable", "Too many registrations from this IP address; try again in an hour.")
            return with_headers(too_many, retry_after(wait))
        try:
            registered = await register_with_token(self._smart, await _body(request), token)
        except InvalidBodyError as error:
            return _error(400, "invalid_client_metadata", str(error))
        except RegistrationError as error:
            return _error(400, error.error, str(error))
        if registered is None:
            return _unauthorized()
        return JSONResponse(registration.client_information(self._smart, registered), 201, headers=_HEADERS)

    async def read(self, request: Request) -> Response:
        """``GET``: the current registration."""
        client = await self._managed(request)
        return _unauthorized() if client is None else self._response(RegisteredClient(client, "", _bearer(request)))

    async def update(self, request: Request) -> Response:
        """``PUT``: replace the metadata."""
        client = await self._managed(request)
        if client is None:
            return _unauthorized()
        try:
            registered = await registration.update(self._smart, client, await _body(request), _bearer(request))
        except InvalidBodyError as error:
            return _error(400, "invalid_client_metadata", str(error))
        except RegistrationError as error:
            return _error(400, error.error, str(error))
        return _unauthorized() if registered is None else self._response(registered)

    async def delete(self, request: Request) -> Response:
        """``DELETE``: remove the registration and revoke its tokens."""
        client = await self._managed(request)
        if client is None:
            return _unauthorized()
        await clients.remove(self._smart.store, client.client_id, self._smart.now())
        return Response(status_code=204, headers=_HEADERS)

    def with_audit(
        self, kind: SecurityEventKind, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler, with its changes and failures recorded in the audit log.

        The log names a client only if the request proved to be the client's: a path or a token that anybody may choose names nobody.
        """

        async def handle(request: Request) -> Response:
            managed = await self._managed(request) if "client_id" in request.path_params else None
            response = await handler(request)
            named, succeeded = "client_id" in request.path_params, response.status_code < 400
            if named or not succeeded:  # register_with_token records new registrations, whose id it knows
                client_id = "" if managed is None else managed.client_id
                await self._smart.record(
                    SecurityEvent(kind, succeeded, client_id=client_id, address=address(request), detail=_cause(response))
                )
            return response

        return handle

    async def _managed(self, request: Request) -> Client | None:
        return await registration.authenticate_manager(self._smart, request.path_params["client_id"], _bearer(request))

    def _response(self, registered: RegisteredClient) -> Response:
        return JSONResponse(registration.client_information(self._smart, registered), headers=_HEADERS)


async def register_with_token(smart: SmartContext, metadata: Any, token: str) -> RegisteredClient | None:
    """Register and consume the initial access token ("": none needed).  Raises RegistrationError.

    None if another registration consumed the token in the meantime.  Invalid metadata does not consume it.
    """
    registered = await registration.register(smart, metadata)
    if not token or await initial_access_tokens.consume(smart.store, token, smart.now()):
        await smart.record(SecurityEvent("register-app", client_id=registered.client.client_id, detail={"name": registered.client.name}))
        return registered
    await clients.remove(smart.store, registered.client.client_id, smart.now())
    return None


def add_registration(routes: APIRouter, smart: SmartContext, limit: RateLimit) -> None:
    """Add the routes of dynamic client registration."""
    endpoints = RegistrationEndpoints(smart, limit)
    client_path = f"{PATH}/{{client_id}}"
    routes.add_api_route(PATH, endpoints.with_audit("register-app", endpoints.create), methods=["POST"])
    routes.add_api_route(client_path, endpoints.read, methods=["GET"])
    routes.add_api_route(client_path, endpoints.with_audit("change-app", endpoints.update), methods=["PUT"])
    routes.add_api_route(client_path, endpoints.with_audit("remove-app", endpoints.delete), methods=["DELETE"])
    for path in (PATH, client_path):
        routes.add_api_route(path, _preflight, methods=["OPTIONS"])


async def _preflight() -> Response:
    return Response(status_code=204, headers=_PREFLIGHT)


async def _body(request: Request) -> Any:
    """The JSON body.  Raises InvalidBodyError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidBodyError("The body must be application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise InvalidBodyError("The body is too large.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidBodyError("The body is not JSON.") from None


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cause(response: Response) -> dict[str, str]:
    """The error code of a refusal: one of a few fixed words."""
    return {} if response.status_code < 400 else {"error": str(json.loads(bytes(response.body))["error"])}


def _error(status: int, error: str, text: str) -> Response:
    return JSONResponse({"error": error, "error_description": text}, status, headers=_HEADERS)


def _unauthorized() -> Response:
    """The same response for a missing token, a wrong token and an unknown registration."""
    body = {"error": "invalid_token", "error_description": "A valid token is required."}
    return JSONResponse(body, 401, headers=_HEADERS | {"WWW-Authenticate": "Bearer"})
