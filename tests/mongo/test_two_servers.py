"""Two server processes on one database: what one acknowledges, the other returns from the next request on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.mongo.revocation_race import Pair, Race, started
from tests.mongo.shared_mongod import fresh_url

ROUNDS, MANY = 30, 1700  # two grant changes per round, with three checked responses each: 180 and 10,200

# Code for a process that never checks whether its cached permissions are current.
STALE = """
from fhir_server.access import authentication
async def is_current(permissions, snapshot, now):
    return now < permissions.valid_until
authentication._is_current = is_current
"""


# Code for a process that uses what it read ahead also if the permissions have changed.
CARELESS = """
from fhir_server.search.visibility import Visibility
Visibility.__eq__ = lambda one, other: True
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with started(fresh_url()) as made:
        yield made


def raced(pair: Pair, rounds: int) -> Race:
    race = Race(pair)
    asyncio.run(race.run(lambda number: number < rounds))
    assert race.judged == rounds * 6 and race.refused == 0
    return race


def test_revoked_access_is_not_served_by_the_other_process(pair: Pair) -> None:
    assert raced(pair, ROUNDS).stale == []


@pytest.mark.slow
def test_revoked_access_is_not_served_in_ten_thousand_rounds(pair: Pair) -> None:
    assert raced(pair, MANY).stale == []


@pytest.mark.parametrize(("fault", "found"), ((STALE, "read after inactive"), (CARELESS, "read after active")))
def test_race_check_detects_stale_permissions(fault: str, found: str) -> None:
    with started(fresh_url(), fault) as pair:
        stale = raced(pair, 3).stale
    assert any(found in one for one in stale)
