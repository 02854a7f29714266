"""SQLite and MongoDB answer searches as the store in memory does, which evaluates ``search/match.py``: every byte of every page.

By each parameter of each type, also some that an institution has added, with each modifier and prefix, by chains, ``_has``, ``_filter``,
sorting and includes; as a caller who sees everything, and as one from whom sensitive data is hidden.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fhir_server.resources import definitions
from fhir_server.search import parameter_definitions
from fhir_server.search.custom_parameters import CustomParameters, in_use
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference.custom_parameters import define, definitions_of
from tests.noninterference.paired_server import FEED, NOW, SECOND, Ask, Caller, World, Write
from tests.properties.query_maker import QueryMaker, VariedResources
from tests.properties.random_resources import IDS, Json

LIMITED = Caller("limited", "BE", "", client="limited", scope="system/*.cruds")
QUERIES = 20_000
PARTS = 10
CUSTOM = ("Appointment", "Encounter", "Location", "Observation", "Patient")  # the types that have custom parameters, too
_NOT_STORED = {"AuditEvent"}  # searches of which read the audit log


def custom() -> CustomParameters:
    """Custom parameters that say the same as R4's."""
    return CustomParameters(frozenset(one for type in CUSTOM for made in definitions_of(type) for one in parameter_definitions.read(made)))


def resources(seed: int) -> list[Json]:
    """Some resources of every type."""
    maker = VariedResources(seed)
    made = [(maker.valid(type), type, id) for type in definitions.types() if type not in _NOT_STORED for id in IDS]
    return [{**one, "id": id} for one, type, id in made if one is not None]


async def compare(urls: tuple[str, ...], number: int, part: int, parts: int, seed: int = 1) -> dict[int, int]:
    """Ask the stores at these URLs; the first is the reference.  Returns how often each status was answered.

    Asked are this part of the searches by one parameter, and so many others that there are ``number``.
    """
    rows = resources(seed)
    worlds = [World(url, seed) for url in urls]
    statuses: dict[int, int] = {}
    try:
        for world in worlds:
            await world.open()
            for place, row in enumerate(rows):
                await world.write(Write(NOW - 3600 * SECOND + place, row["resourceType"], row["id"], row))
            await define(world, CUSTOM)
        tokens = [[await world.token(caller) for world in worlds] for caller in (FEED, LIMITED)]
        with in_use(custom()):
            plain = [(type, [pair]) for type, pair in QueryMaker(seed, rows).plain()][part::parts]
            mixed = QueryMaker(part, rows)
            asked = [*plain, *(mixed.mixed() for _ in range(max(0, number - len(plain))))]
        for turn, (type, pairs) in enumerate(one for one in asked if one[0] not in _NOT_STORED):
            ask = Ask.get("search", type, [*pairs, ("_total", "accurate")])
            answers = [await world.ask(ask, token) for world, token in zip(worlds, tokens[turn % 2], strict=True)]
            statuses[answers[0].status] = statuses.get(answers[0].status, 0) + 1
            assert answers[0].status < 500, ask
            for url, answer in zip(urls[1:], answers[1:], strict=True):
                assert answer.bytes() == answers[0].bytes(), f"{url.partition(':')[0]} differs at {ask}"
    finally:
        for world in worlds:
            await world.close()
    return statuses


def test_stores_answer_a_share_of_all_searches_as_the_reference_does(tmp_path: Path) -> None:
    statuses = asyncio.run(compare(("memory:", f"sqlite:///{tmp_path}/one.sqlite"), 600, part=7, parts=37))
    assert statuses[200] > 500, statuses


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_stores_answer_all_searches_as_the_reference_does(part: int, tmp_path: Path) -> None:
    urls = ("memory:", f"sqlite:///{tmp_path}/one.sqlite", emptied_url())
    statuses = asyncio.run(compare(urls, QUERIES // PARTS, part, PARTS))
    assert statuses[200] > QUERIES / PARTS * 0.8, statuses
