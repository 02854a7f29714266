"""Time and revocation: after access ends, data that the caller saw before must not affect any response.

The first server stores a record that the caller can open at first.  On the second server, that record never existed.  The
caller uses both servers and may get different responses.  Then the same event happens on both: a grant ends, a birthday
passes, a token is revoked.  After the event the responses must be equal, also for page links that the caller got before, for exports
and for questions that were asked with the preference to be answered later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.core import token_grants
from tests.noninterference.capability import Capability
from tests.noninterference.case_generator import Drawing
from tests.noninterference.comparison import Tally, Twins
from tests.noninterference.oracle import FACTS
from tests.noninterference.paired_server import BASE, DAY, FEED, Ask, Caller, World, Write
from tests.noninterference.request_generator import Asker

Happening = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Trace:
    """An event that changes access.  ``ends``: the caller loses all access to the record, so the second server never stores it."""

    name: str
    caller: Caller
    happens: Happening
    ends: bool = True


def _parent(patient: str) -> Caller:
    return Caller(f"parent of {patient}", "PT", patient, f"RelatedPerson/parent-of-{patient}", "parent")


def _amended(name: str, **changes: Any) -> Happening:
    async def happens(world: World) -> None:
        old = next(write for write in FACTS if write.name == name)
        await world.write(Write(world.clock.now, old.type, old.id, {**(old.resource or {}), **changes}))

    return happens


async def _a_day_passes(world: World) -> None:
    world.clock.now += DAY


async def _revoked(world: World) -> None:
    for grant in await _standing(world):
        await world.parts.store.key_values.delete_family(grant.family)


async def _standing(world: World) -> Any:
    return [one for one in await token_grants.active_grants(world.parts.store, world.clock.now) if one.client_id != FEED.client]


async def _closed(world: World) -> None:
    user = await users.find(world.parts.store, "parent")
    assert user is not None
    await users.save(world.parts.store, msgspec.structs.replace(user, disabled=True))


TRACES = (
    Trace("the grant is withdrawn", _parent("teen"), _amended("Consent/grant-teen", status="inactive")),
    Trace("the relation ends", _parent("teen"), _amended("RelatedPerson/parent-of-teen", active=False)),
    Trace("the birth date is corrected", _parent("teen"), _amended("Patient/teen", birthDate="2001-01-01")),
    Trace("the child turns 18", _parent("turning-18"), _a_day_passes),
    Trace("the child turns 12", _parent("turning-12"), _a_day_passes, ends=False),
    Trace("the token is revoked", _parent("teen"), _revoked),
    Trace("the account is closed", _parent("teen"), _closed),
)


async def followed(trace: Trace, seed: int, capability: Capability, asks: int, tally: Tally | None = None) -> None:
    """Run a trace.  Raises Leak if the servers respond differently after the event."""
    case = Drawing(seed, trace.caller).case(seed)
    if trace.ends:
        # Secrets that edit rows of the record are left out, as are late writes; all other hidden data stays.
        case = replace(case, secrets=tuple(secret for secret in case.secrets if not any(secret.edits)), late=())
    twins = Twins(case, tally=tally)
    await twins.open(without=frozenset(write.name for write in case.shown) if trace.ends else frozenset(), lifetime=30 * DAY)
    asker = Asker(case, capability, seed)
    links: dict[str, None] = {}
    jobs: dict[str, None] = {}
    for world, token in zip(twins.worlds, twins.tokens, strict=True):
        for ask in asker.steady():
            answer = await world.ask(ask, token)
            link = answer.link("next")
            links.update({link: None} if link else {})
            jobs.update({answer.location(): None} if answer.status == 202 else {})
        await trace.happens(world)
    for link in links:
        path, _, query = link.removeprefix(BASE + "/").partition("?")
        await twins.both(Ask("old-link", "GET", path, query))
    assert jobs, "The steady requests begin no job."
    for job in jobs:
        await twins.fetched(job)
    await twins.run(capability, asks, seed)
    await twins.close()
