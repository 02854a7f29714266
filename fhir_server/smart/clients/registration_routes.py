"""``/oauth/register`` for programs: RFC 7591 to register, RFC 7592 to look after a registration."""

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
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.core.security_events import Kind, SecurityEvent
from fhir_server.web.forms import CORS, MAX_FORM, NO_STORE, PREFLIGHT, address, with_headers

PATH: Final = "/oauth/register"
MAX_REGISTRATIONS_PER_HOUR: Final = 30  # registrations an hour
_HEADERS: Final = CORS | NO_STORE
_PREFLIGHT: Final = PREFLIGHT | {"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS"}


class InvalidBodyError(ValueError):
    """A body that is not a small JSON document."""


class RegistrationEndpoints:
    """The endpoints of one :class:`SmartContext`; ``limit`` is shared with the page for people."""

    def __init__(self, smart: SmartContext, limit: RateLimit) -> None:
        self._smart = smart
        self._limit = limit

    async def create(self, request: Request) -> Response:
        token = _bearer(request)
        if (token or not self._smart.is_demo) and not await initial_access_tokens.is_valid(self._smart.store, token, self._smart.now()):
            return _unauthorized()
        who, now = address(request), self._smart.now()
        if not self._limit.count_if_allowed(who, now):
            refused = _error(429, "temporarily_unavailable", "Too many registrations from this address; try again in an hour.")
            return with_headers(refused, self._limit.headers(who, now))
        try:
            done = await register_with_token(self._smart, await _body(request), token)
        except InvalidBodyError as error:
            return _error(400, "invalid_client_metadata", str(error))
        except RegistrationError as refused:
            return _error(400, refused.error, str(refused))
        return _unauthorized() if done is None else JSONResponse(registration.client_information(self._smart, done), 201, headers=_HEADERS)

    async def read(self, request: Request) -> Response:
        client = await self._managed(request)
        return _unauthorized() if client is None else self._response(RegisteredClient(client, "", _bearer(request)))

    async def update(self, request: Request) -> Response:
        client = await self._managed(request)
        if client is None:
            return _unauthorized()
        try:
            done = await registration.update(self._smart, client, await _body(request), _bearer(request))
        except InvalidBodyError as error:
            return _error(400, "invalid_client_metadata", str(error))
        except RegistrationError as refused:
            return _error(400, refused.error, str(refused))
        return _unauthorized() if done is None else self._response(done)

    async def delete(self, request: Request) -> Response:
        client = await self._managed(request)
        if client is None:
            return _unauthorized()
        await clients.remove(self._smart.store, client.client_id, self._smart.now())
        return Response(status_code=204, headers=_HEADERS)

    def with_audit(self, kind: Kind, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The handler, of whose doings the journal is told."""

        async def answer(request: Request) -> Response:
            response = await handler(request)
            named, done = request.path_params.get("client_id", "")[:100], response.status_code < 400
            if named or not done:  # a new registration is told of where its id is known
                await self._smart.record(SecurityEvent(kind, done, client_id=named, address=address(request)))
            return response

        return answer

    async def _managed(self, request: Request) -> Client | None:
        return await registration.authenticate_manager(self._smart, request.path_params["client_id"], _bearer(request))

    def _response(self, done: RegisteredClient) -> Response:
        return JSONResponse(registration.client_information(self._smart, done), headers=_HEADERS)


async def register_with_token(smart: SmartContext, metadata: Any, token: str) -> RegisteredClient | None:
    """Register, using the invitation up if there is one; None if another registration has just used it.  Raises Refused.

    An invitation is taken only for metadata that can be registered, so that a slip of the pen does not cost it.
    """
    done = await registration.register(smart, metadata)
    if not token or await initial_access_tokens.consume(smart.store, token, smart.now()):
        await smart.record(SecurityEvent("register-app", client_id=done.client.client_id, detail={"name": done.client.name}))
        return done
    await clients.remove(smart.store, done.client.client_id, smart.now())
    return None


def add_registration(routes: APIRouter, smart: SmartContext, limit: RateLimit) -> None:
    """Add the endpoints' routes."""
    here = RegistrationEndpoints(smart, limit)
    one = f"{PATH}/{{client_id}}"
    routes.add_api_route(PATH, here.with_audit("register-app", here.create), methods=["POST"])
    routes.add_api_route(one, here.read, methods=["GET"])
    routes.add_api_route(one, here.with_audit("change-app", here.update), methods=["PUT"])
    routes.add_api_route(one, here.with_audit("remove-app", here.delete), methods=["DELETE"])
    for path in (PATH, one):
        routes.add_api_route(path, _preflight, methods=["OPTIONS"])


async def _preflight() -> Response:
    return Response(status_code=204, headers=_PREFLIGHT)


async def _body(request: Request) -> Any:
    """The JSON body.  Raises BadBody."""
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


def _error(status: int, error: str, text: str) -> Response:
    return JSONResponse({"error": error, "error_description": text}, status, headers=_HEADERS)


def _unauthorized() -> Response:
    """One answer for no token, a wrong one, and a registration that is not there."""
    body = {"error": "invalid_token", "error_description": "A token for this registration is needed."}
    return JSONResponse(body, 401, headers=_HEADERS | {"WWW-Authenticate": "Bearer"})
