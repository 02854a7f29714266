"""A server on SQLite and one on MongoDB get the same requests and writes, one after the other, and give the same answers to the byte."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.store.mongodb.reader import MongoSnapshot
from tests.mongo.shared_mongod import emptied_url
from tests.noninterference import comparison
from tests.noninterference.case_generator import Case, Secret, case
from tests.noninterference.comparison import Leak, Tally, Twins
from tests.noninterference.oracle import CALLERS
from tests.noninterference.paired_server import Ask

WRITES = ("create", "conditional-create", "update", "delete", "transaction", "batch", "feed-write")


def same_on_both(drawn: Case) -> Case:
    """The case with the same hidden data on both servers."""

    def same(secret: Secret) -> Secret:
        return Secret(secret.kind, (secret.writes[0],) * 2, (secret.edits[0],) * 2)

    return replace(drawn, secrets=tuple(map(same, drawn.secrets)), late=tuple(map(same, drawn.late)))


async def compare(seeds: range, asks: int, folder: Path, tally: Tally) -> None:
    """Send what is drawn for each seed to both stores.  Raises Leak at the first difference."""
    capability = await comparison.capability()
    for seed in seeds:
        drawn = same_on_both(case(seed))
        twins = Twins(drawn, (f"sqlite:///{folder / str(seed)}.sqlite", emptied_url()), tally)
        twins._canaries = frozenset()  # what is hidden from the caller is not from the feed
        await twins.open()
        try:
            await twins.run(capability, asks)
            twins.tokens = twins.feeds
            await _as_feed(twins, drawn)
        finally:
            await twins.close()


async def _as_feed(twins: Twins, drawn: Case) -> None:
    """Write all visible rows again as the feed, in several ways, and read everything."""
    for number, (name, write) in enumerate(sorted(drawn.standing().items())):
        body = json.dumps({**(write.resource or {}), "id": write.id, "language": "en"}).encode()
        matched = (("if-match", 'W/"1"'),) if number % 3 == 0 else ()
        await twins.both(Ask("feed-write", "PUT", name, "", (("content-type", "application/fhir+json"), *matched), body))
        if number % 5 == 0:
            await twins.both(Ask("feed-write", "DELETE", name))
        await twins.both(Ask.get("feed-read", f"{name}/_history"))
    for type in sorted({name.partition("/")[0] for name in drawn.standing()}):
        for sort in ("", "_lastUpdated", "-_lastUpdated"):
            await twins.paged(Ask.get("feed-search", type, [("_count", "5"), *([("_sort", sort)] if sort else [])]))


def written(tally: Tally) -> int:
    return sum(tally.by_kind.get(kind, 0) for kind in WRITES)


def test_stores_answer_in_lockstep(tmp_path: Path) -> None:
    tally = Tally()
    asyncio.run(compare(range(0, len(CALLERS), 3), 12, tmp_path, tally))
    assert tally.requests > 400 and written(tally) > 40 and tally.statuses[200] > 200


@pytest.mark.slow
def test_stores_answer_thousands_of_requests_in_lockstep(tmp_path: Path) -> None:
    tally = Tally()
    asyncio.run(compare(range(len(CALLERS)), 12, tmp_path, tally))
    asyncio.run(compare(range(100, 100 + 6 * len(CALLERS)), 100, tmp_path, tally))
    assert tally.requests > 5000 and written(tally) > 1000


@pytest.mark.parametrize("fault", ("count", "order"))
def test_planted_differences_of_stores_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    exact: Any = getattr(MongoSnapshot, "count" if fault == "count" else "find")

    async def wrong(self: Any, *args: Any, **options: Any) -> Any:
        found = await exact(self, *args, **options)
        if fault == "count":
            return found + (found > 3)
        return type(found)(found.rows[::-1], found.next, found.total)

    monkeypatch.setattr(MongoSnapshot, exact.__name__, wrong)
    with pytest.raises(Leak, match="answer differently"):
        asyncio.run(compare(range(len(CALLERS)), 12, tmp_path, Tally()))
