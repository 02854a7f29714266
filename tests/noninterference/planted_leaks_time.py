"""Planted leaks that depend on time: access continues after it should have ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fhir_server.access import authentication
from fhir_server.access.permissions import Permissions
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import provisions, relationships
from fhir_server.interactions import async_requests, routing
from fhir_server.interactions.messages import AuditContext, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.smart.accounts import users
from fhir_server.smart.tokens import tokens
from tests.noninterference.planted_leaks import Leak, Patch

TIME_LEAKS: list[Leak] = []


def _leak(channel: str) -> Any:
    def add(plant: Any) -> Any:
        TIME_LEAKS.append(Leak(plant.__name__.replace("_", " ").strip(), channel, plant))
        return plant

    return add


@_leak("T03")
def a_plan_is_kept_whatever_the_store_s_counters_say(patch: Patch) -> None:
    async def stands(permissions: Permissions, snapshot: Any, now: int) -> bool:
        return now < permissions.valid_until

    patch.setattr(authentication, "_is_current", stands)


@_leak("T01")
def a_plan_is_kept_past_its_end(patch: Patch) -> None:
    exact = authentication._is_current

    async def stands(permissions: Permissions, snapshot: Any, now: int) -> bool:
        return await exact(permissions, snapshot, min(now, permissions.valid_until - 1))

    patch.setattr(authentication, "_is_current", stands)


@_leak("T09")
def a_withdrawn_consent_still_grants(patch: Patch) -> None:
    exact = provisions.proxy_provisions

    def grants(consents: Any, *args: Any, **kwargs: Any) -> Any:
        return exact([{**one, "status": "active"} for one in consents], *args, **kwargs)

    patch.setattr(relationships, "proxy_provisions", grants)


@_leak("T09")
def a_relation_that_has_ended_still_counts(patch: Patch) -> None:
    exact = relationships._relation
    patch.setattr(relationships, "_relation", lambda related, *args: exact({**related, "active": True}, *args))


@_leak("T01")
def an_eighteenth_birthday_ends_nothing(patch: Patch) -> None:
    exact = relationships.aging.age_limits
    patch.setattr(relationships.aging, "age_limits", lambda *args: replace(exact(*args), proxy_access_ends=MAX_INSTANT))


@_leak("T01")
def a_twelfth_birthday_narrows_nothing(patch: Patch) -> None:
    exact = relationships.aging.age_limits
    patch.setattr(relationships.aging, "age_limits", lambda *args: replace(exact(*args), turns_12=MAX_INSTANT))


@_leak("T02")
def a_closed_account_s_tokens_live_on(patch: Patch) -> None:
    exact = users.find

    async def find(store: Any, username: str) -> Any:
        user = await exact(store, username)
        return None if user is None else type(user)(**{name: getattr(user, name) for name in user.__struct_fields__} | {"disabled": False})

    patch.setattr(tokens.users, "find", find)


@_leak("T02")
def a_revoked_token_is_remembered(patch: Patch) -> None:
    exact, seen = tokens.resolve_principal, dict[str, Any]()

    async def principal(store: Any, token: str, now: int) -> Any:
        key = f"{id(store)} {token}"
        seen[key] = await exact(store, token, now) or seen.get(key)
        return seen[key]

    patch.setattr(tokens, "resolve_principal", principal)


@_leak("T06")
def a_later_answer_is_made_when_it_is_asked_for(patch: Patch) -> None:
    exact, exact_status, made = async_requests.kick_off, async_requests.status, dict[str, Response]()

    async def kick_off(request: Request, service: Service, audit: AuditContext) -> Response | None:
        accepted = await exact(request, service, audit)
        if accepted is not None:
            location = dict(accepted.headers)[b"content-location"].decode()
            answer = await routing._ask(request, service, AuditContext())
            made[f"{id(service.store)} {location}"] = Response(answer.status, b"".join((answer.body, *answer.parts)), answer.headers)
        return accepted

    async def status(request: Request, service: Service, audit: AuditContext, ask: Any) -> Response:
        location = f"{service.base}/{'/'.join(request.path)}"

        async def answer(*_: Any) -> Response:
            return made[f"{id(service.store)} {location}"]

        return await exact_status(request, service, audit, answer)

    patch.setattr(async_requests, "kick_off", kick_off)
    patch.setattr(async_requests, "status", status)
