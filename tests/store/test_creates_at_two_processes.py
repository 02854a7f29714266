"""Two server processes on one store, both with many creates at once: each acknowledged create is there once, and none fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.attacks.test_two_processes import Pair, at, started
from tests.mongo.shared_mongod import fresh_url
from tests.served import Served
from tests.waiting import HANG

CREATES, IDENTIFIERS, RIVALS = 80, 10, 6
SYSTEM = "urn:test:two-processes"

_LOSES_A_COMMIT = """
from fhir_server.store.sqlite.transaction import SqliteTransaction
written, lost = [], []
put, commit = SqliteTransaction.put, SqliteTransaction.commit
async def putting(self, indexed):
    written.append(indexed.row.type)
    await put(self, indexed)
def losing(self):
    if "Basic" in written and not lost:
        lost.append(self)
        self.connection.execute("ROLLBACK")
    else:
        commit(self)
SqliteTransaction.put, SqliteTransaction.commit = putting, losing
"""  # the first commit with a create, however many creates are in one
_OVERLOOKS_WHAT_IS_THERE = """
from fhir_server.access.view import View
find = View.find
async def finding(self, type, *what, **how):
    return await find(self, type if type != "Basic" else "Account", *what, **how)
View.find = finding
"""


def _url(scheme: str, folder: Path) -> str:
    return fresh_url() if scheme == "mongodb" else f"sqlite:///{folder / 'fhir.sqlite'}"


def _body(identifier: str) -> dict[str, Any]:
    return {"resourceType": "Basic", "code": {"text": "note"}, "identifier": [{"system": SYSTEM, "value": identifier}]}


class _Clients:
    """A client of the institution that sends to both processes in turn."""

    def __init__(self, pair: Pair, client: httpx.AsyncClient) -> None:
        self._pair, self._client = pair, client

    async def create(self, number: int, identifier: str, *, is_conditional: bool = False) -> httpx.Response:
        condition = {"if-none-exist": f"identifier={SYSTEM}|{identifier}"} if is_conditional else {}
        return await self._client.post(f"{at(self._pair, number)}/fhir/Basic", json=_body(identifier), headers=condition)

    async def identifiers(self, number: int) -> Counter[str]:
        """How many rows have each identifier, as this process answers."""
        answer = await self._client.get(f"{at(self._pair, number)}/fhir/Basic", params={"_count": "1000"})
        assert answer.status_code == 200
        rows = [entry["resource"] for entry in answer.json().get("entry", ())]
        return Counter([row["identifier"][0]["value"] for row in rows])


def _run(scheme: str, folder: Path, job: Any, fault: str = "") -> None:
    url = _url(scheme, folder)
    with started(url, fault) as pair:
        served = Served(url)
        headers = {"authorization": f"Bearer {served.token()}", "content-type": "application/fhir+json"}
        served.close()

        async def run() -> None:
            limits = httpx.Limits(max_connections=CREATES)
            async with httpx.AsyncClient(headers=headers, timeout=HANG, limits=limits) as client:
                await job(_Clients(pair, client))

        asyncio.run(run())


async def _require_all(clients: _Clients) -> None:
    answers = await asyncio.gather(*(clients.create(number, f"i{number}") for number in range(CREATES)))
    assert Counter(answer.status_code for answer in answers) == {201: CREATES}
    assert len({answer.headers["location"].rpartition("/fhir/")[2] for answer in answers}) == CREATES
    expected = Counter([f"i{number}" for number in range(CREATES)])
    assert [await clients.identifiers(0), await clients.identifiers(1)] == [expected, expected]


async def _require_one_of_each(clients: _Clients) -> None:
    asked = [f"i{number}" for number in range(IDENTIFIERS) for _ in range(RIVALS)]
    answers = await asyncio.gather(*(clients.create(number, one, is_conditional=True) for number, one in enumerate(asked)))
    statuses = {one: Counter(answer.status_code for name, answer in zip(asked, answers, strict=True) if name == one) for one in asked}
    assert statuses == {one: Counter({201: 1, 200: RIVALS - 1}) for one in asked}
    expected = Counter(dict.fromkeys(asked, 1))
    assert [await clients.identifiers(0), await clients.identifiers(1)] == [expected, expected]


@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_no_create_that_two_processes_acknowledge_is_lost(scheme: str, tmp_path: Path) -> None:
    _run(scheme, tmp_path, _require_all)


@pytest.mark.parametrize("scheme", ["sqlite", "mongodb"])
def test_conditional_creates_at_two_processes_make_one_row(scheme: str, tmp_path: Path) -> None:
    _run(scheme, tmp_path, _require_one_of_each)


def test_lost_commits_of_one_process_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Counter"):
        _run("sqlite", tmp_path, _require_all, _LOSES_A_COMMIT)


def test_rows_that_a_condition_overlooks_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="201"):
        _run("sqlite", tmp_path, _require_one_of_each, _OVERLOOKS_WHAT_IS_THERE)
