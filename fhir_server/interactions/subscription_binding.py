"""``$get-ws-binding-token``, and whose websocket may have the notifications of a Subscription.

https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/channels.html#websockets.  A browser cannot send an access token when it opens a
websocket, so it asks for a binding token before and sends that as a message.  It is good once, for a minute, and only as long as the
access token is with which it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import View, not_found
from fhir_server.clock import SECOND, instant_text
from fhir_server.errors import Problem
from fhir_server.interactions import preconditions, subscription_operations, subscription_search
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response
from fhir_server.interactions.operation_parameters import Kinds, read_parameters
from fhir_server.interactions.owned_jobs import owner
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_grants import require_grant
from fhir_server.interactions.subscription_plan import WEBSOCKET
from fhir_server.interactions.subscription_records import TYPE, Stored
from fhir_server.search.custom_parameters import in_use
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import digest, new_secret
from fhir_server.smart.core.token_grants import ACCESS
from fhir_server.smart.tokens.tokens import Principal, principal_of
from fhir_server.store import Store

SOCKET_PATH: Final = "/websocket"  # below the server's origin
KIND: Final = "subscription-binding"
TOKEN_LIFE: Final = 60 * SECOND
_PARAMETERS: Final[Kinds] = {"id": "texts"}


class Binding(msgspec.Struct, frozen=True):
    """What a binding token stands for: the digest of the access token, and the ids of the Subscriptions."""

    access: str
    ids: tuple[str, ...]


def socket_url(base: str) -> str:
    """The URL of the websocket, for the FHIR base URL."""
    return f"ws{base.removeprefix('http').removesuffix('/fhir')}{SOCKET_PATH}"


async def get_token(request: Request, service: Service, audit: AuditContext) -> Response:
    """``Subscription/$get-ws-binding-token`` and ``Subscription/id/$get-ws-binding-token``: a token, as Parameters.

    Raises Problem ``not_found``, ``forbidden``, ``invalid``, ``unprocessable`` or ``read_only``.
    """

    async def found(view: View) -> list[Stored]:
        preconditions.require_only(request)
        subscription_operations.admit(view.permissions, TYPE)
        asked = await read_parameters(request, service, _PARAMETERS)
        ids = (request.path[1],) if len(request.path) == 3 else tuple(dict.fromkeys(asked.all("id")))
        return await bindable(view, ids, service)

    stored = await service.read_with_view(request, audit, found)
    await service.require_writable()
    access = digest(request.headers.get("authorization", "").partition(" ")[2])
    grant = await token_grants.find(service.store, ACCESS, access, request.now)
    if grant is None:
        raise Problem("unauthenticated", "The access token is not valid.")
    token, binding = new_secret(), Binding(access, tuple([one.id for one in stored]))
    expires = min(request.now + TOKEN_LIFE, grant.expires)
    await service.store.key_values.put(KIND, digest(token), msgspec.json.encode(binding), expires, grant.family)
    parameters = [
        {"name": "token", "valueString": token},
        {"name": "expiration", "valueDateTime": instant_text(expires)},
        *({"name": "subscription", "valueString": id} for id in binding.ids),
        {"name": "websocket-url", "valueUrl": socket_url(service.base)},
    ]
    return Response(200, jsontext.dumps({"resourceType": "Parameters", "parameter": parameters}), ((b"content-type", JSON),))


async def redeem(store: Store, token: str, now: int) -> Binding | None:
    """What a binding token stands for; None if there is none such.  It is good once: of concurrent callers one gets it."""
    record = await store.key_values.pop(KIND, digest(token), now)
    return None if record is None else msgspec.json.decode(record, type=Binding)


async def bindable(view: View, ids: Sequence[str], service: Service) -> list[Stored]:
    """The caller's own Subscriptions with these ids, or all of them, that have a websocket and rest on the caller's grant.

    Raises Problem ``not_found`` for one that does not exist or is of somebody else, also for a system that may read those of all;
    ``unprocessable`` for one with another channel or the status off; ``forbidden`` if the caller does not have its grant.
    """
    mine = owner(view.permissions)
    found = [one for one in await subscription_search.readable(view, frozenset(ids)) if one.subscription.owner == mine]
    missing = [id for id in ids if id not in {one.id for one in found}]
    if missing:
        raise not_found(TYPE, missing[0])
    bound = [one for one in found if _has_websocket(one, service)]
    if not bound or (ids and len(bound) < len(found)):
        raise Problem("unprocessable", "Only a Subscription with the channel websocket that is not off can be bound.")
    for one in bound:
        await require_grant(one, view.permissions.principal, service, view.now)
    return bound


def _has_websocket(stored: Stored, service: Service) -> bool:
    subscription = stored.subscription
    return subscription.status != "off" and subscription.plan(service.base, service.endpoints).channel == WEBSOCKET


async def caller_of(store: Store, access: str, now: int) -> Principal | None:
    """The caller of the access token with this digest at ``now`` (microseconds); None if its access has ended."""
    grant = await token_grants.find(store, ACCESS, access, now)
    return None if grant is None else await principal_of(store, grant, now)


async def resolve(service: Service, binding: Binding, now: int, audit: AuditContext) -> tuple[Principal, list[Stored]]:
    """Who binds, and what is bound.  Raises Problem ``unauthenticated`` and what :func:`bindable` raises."""
    principal = await caller_of(service.store, binding.access, now)
    if principal is None:
        raise Problem("unauthenticated", "The access token is not valid.")
    async with service.store.snapshot() as snapshot:
        audit.permissions = await service.authenticator.permissions_of(snapshot, principal, now)
        view = View(snapshot, audit.permissions, now, audit.shown)
        with in_use(audit.permissions.parameters):
            return principal, await bindable(view, binding.ids, service)


async def still_holds(service: Service, access: str, stored: Stored, now: int) -> bool:
    """Whether the access token with this digest still has the grant on which the Subscription rests."""
    caller = await caller_of(service.store, access, now)
    try:
        if caller is not None:
            await require_grant(stored, caller, service, now)
    except Problem as problem:
        if problem.kind != "forbidden":
            raise
        return False
    return caller is not None
