"""The routes of the SCIM API, and the door before them.

Who asks is decided from the head of a request, before its body is read: 401 without a valid access token, 403 with one for anything
else.  Every request is recorded in the audit log before it is answered, also a refused one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from scim2_models import Error, SCIMException

from fhir_server.errors import Problem
from fhir_server.scim.accounts import NoSuchUserError, PreconditionError
from fhir_server.scim.endpoints import ScimAnswer, ScimEndpoints, ScimRequest
from fhir_server.scim.models import PATH
from fhir_server.smart.accounts.administration import BUSY, TakenReferenceError
from fhir_server.smart.accounts.users import TakenNameError
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind
from fhir_server.smart.tokens import tokens
from fhir_server.web.forms import MAX_FORM, NO_STORE, address

MAX_FAILURES: Final = 100  # requests without a valid token, per minute from one IP address
MAX_REQUESTS: Final = 1200  # per minute from one client
MEDIA: Final = "application/scim+json"
Handler = Callable[[ScimRequest], Awaitable[ScimAnswer]]
_KINDS: Final[dict[str, SecurityEventKind]] = {
    "POST": "add-user", "PUT": "change-account", "PATCH": "change-account", "DELETE": "remove-user",
}  # fmt: skip
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class RefusedError(Exception):
    """A request that is refused with an HTTP status, a text and perhaps a ``scimType`` (RFC 7644 3.12)."""

    def __init__(self, status: int, detail: str, scim_type: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.scim_type, self.headers = status, scim_type, headers or {}


class Door:
    """Lets requests in, answers and records them."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._failures = RateLimit("scim failures", MAX_FAILURES, MINUTE)
        self._requests = RateLimit("scim requests", MAX_REQUESTS, MINUTE)

    def route(self, handler: Handler, *, body: bool = False, open_to_all: bool = False, searches: bool = False) -> Any:
        """Return the route of a handler.  ``body``: whether it takes one; ``searches``: whether it only reads in spite of its method."""

        async def handle(request: Request) -> Response:
            client, answer = "", ScimAnswer(500)
            try:
                client = "" if open_to_all else await self._admit(request)
                answer = await handler(await _scim_request(request, body))
            except Exception as error:
                answer = _refusal(error)
            if answer.status != 429:
                try:
                    await self._smart.record(_event(request, client, answer, searches=searches))
                except Problem as problem:
                    answer = _refusal(problem)
            return _response(answer)

        return handle

    async def _admit(self, request: Request) -> str:
        """Return the id of the client whose token this is.  Raises RefusedError."""
        caller, now, values = address(request), self._smart.now(), self._smart.store.key_values
        if wait := await self._failures.wait(values, caller, now):
            raise RefusedError(429, "Too many requests without a valid access token.", headers=retry_after(wait))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        principal = await tokens.resolve_bearer(self._smart.store, token, now) if scheme.lower() == "bearer" and token else None
        if principal is None:
            await self._failures.take(values, caller, now)
            raise RefusedError(401, "A valid access token is required.", headers={"WWW-Authenticate": 'Bearer realm="scim"'})
        if not principal.administers:
            challenge = 'Bearer realm="scim", error="insufficient_scope", scope="system/scim"'
            raise RefusedError(403, "The access token is not for the administration of accounts.", headers={"WWW-Authenticate": challenge})
        if wait := await self._requests.take(values, "", now, principal.client_id):
            raise RefusedError(429, "Too many requests.", headers=retry_after(wait))
        return principal.client_id


async def _scim_request(request: Request, has_body: bool) -> ScimRequest:
    """The request for a handler.  Raises RefusedError for a body that is not JSON, or too large."""
    payload = _parsed(await _read(request)) if has_body else None
    return ScimRequest(request.headers, request.query_params, request.path_params.get("id", ""), payload)


async def _read(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in (MEDIA, "application/json"):
        raise RefusedError(415, f"The body must be {MEDIA}.")
    too_large = RefusedError(413, f"A body may have {MAX_FORM} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > MAX_FORM):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise too_large
    return bytes(body)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(400, "The body must be a JSON object.", "invalidSyntax") from None


def _refusal(error: Exception) -> ScimAnswer:
    """The answer to a request that failed.  Raises an error that is none of the caller's."""
    headers: dict[str, str] = {}
    match error:
        case RefusedError():
            body, headers = Error(status=error.status, scim_type=error.scim_type or None, detail=str(error)), error.headers
        case ValidationError():
            body = Error.from_validation_errors(error)[0]
        case SCIMException():
            body = error.to_error()
        case NoSuchUserError():
            body = Error(status=404, detail="There is no such resource.")
        case PreconditionError():
            body = Error(status=412, detail="The resource has another version.")
        case TakenNameError() | TakenReferenceError():
            body = Error(status=409, scim_type="uniqueness", detail=str(error))
        case TimeoutError():
            body, headers = Error(status=503, detail=BUSY), {"Retry-After": "1"}
        case Problem():
            body, headers = (
                Error(status=error.status, detail=str(error)),
                _retry(error),
            )
        case ValueError():
            body = Error(status=400, scim_type="invalidValue", detail=str(error))
        case _:
            raise error
    return ScimAnswer(body.status or 400, body.model_dump(), headers)


def _retry(problem: Problem) -> dict[str, str]:
    return {"Retry-After": str(problem.retry_after)} if problem.status == 503 else {}


def _event(request: Request, client: str, answer: ScimAnswer, *, searches: bool) -> SecurityEvent:
    """What is recorded of a request: the client, what it did, and to which account."""
    user = answer.user
    detail = {"what": f"{request.method} {request.url.path.removeprefix(PATH)[:200]}", "status": str(answer.status)}
    if user is not None:
        detail |= {"user": user.username, "role": user.role, "locked": str(user.disabled).lower()}
    if request.query_params.get("filter"):
        detail["filter"] = "".join(each for each in request.query_params["filter"][:200] if each.isprintable())
    about = tuple(sorted(name for name in user.references if name.startswith("Patient/"))) if user else ()
    kind = "read-users" if searches else _KINDS.get(request.method, "read-users")
    return SecurityEvent(kind, answer.status < 400, "", client, address(request), about, detail)


def _response(answer: ScimAnswer) -> Response:
    headers = dict(NO_STORE) | dict(answer.headers)
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    return Response(msgspec.json.encode(answer.body), answer.status, headers, MEDIA)


def router(smart: SmartContext) -> APIRouter:
    """All routes below ``/scim/v2``."""
    routes, door, endpoints = APIRouter(include_in_schema=False), Door(smart), ScimEndpoints(smart)
    served: dict[str, dict[str, Any]] = {
        "ServiceProviderConfig": {"GET": door.route(endpoints.configuration, open_to_all=True)},
        "ResourceTypes": {"GET": door.route(endpoints.resource_types)},
        "ResourceTypes/{id}": {"GET": door.route(endpoints.resource_types)},
        "Schemas": {"GET": door.route(endpoints.schemas)},
        "Schemas/{id}": {"GET": door.route(endpoints.schemas)},
        "Users": {"GET": door.route(endpoints.list_users), "POST": door.route(endpoints.create, body=True)},
        "Users/.search": {"POST": door.route(endpoints.list_users, body=True, searches=True)},
        ".search": {"POST": door.route(endpoints.list_users, body=True, searches=True)},  # there are no resources but Users
        "Users/{id}": {
            "GET": door.route(endpoints.read),
            "PUT": door.route(endpoints.replace, body=True),
            "PATCH": door.route(endpoints.patch, body=True),
            "DELETE": door.route(endpoints.remove),
        },
        "Me": dict.fromkeys(_METHODS, door.route(_not_supported)),  # RFC 7644 3.11
        "Bulk": dict.fromkeys(_METHODS, door.route(_not_supported)),  # RFC 7644 3.7
        "{rest:path}": dict.fromkeys(_METHODS, door.route(_not_found)),
    }
    wrong_method = door.route(_wrong_method)
    for path, methods in served.items():
        for method in _METHODS:
            routes.add_api_route(f"{PATH}/{path}", methods.get(method, wrong_method), methods=[method])
    return routes


async def _wrong_method(request: ScimRequest) -> ScimAnswer:
    raise RefusedError(405, "This URL does not support the method.")


async def _not_supported(request: ScimRequest) -> ScimAnswer:
    raise RefusedError(501, "This server does not support this.")


async def _not_found(request: ScimRequest) -> ScimAnswer:
    raise RefusedError(404, "There is no such resource.")
