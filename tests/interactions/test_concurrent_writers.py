"""Forty writers of one resource at the same moment, on every store: nothing is lost, nobody is turned away."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.seeded import seeded
from tests.served import Answer, Served, call, store_url

WRITERS = 40
NAME = "Observation/many"
ROW = {
    "resourceType": "Observation", "id": "many", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"},
    "encounter": {"reference": "Encounter/adult-annual-visit"},
}  # fmt: skip


def written(served: Served, **headers: str) -> list[Answer]:
    sent = {"authorization": f"Bearer {served.token()}", "content-type": "application/fhir+json", **headers}

    async def all_at_once() -> list[Answer]:
        bodies = [{**ROW, "note": [{"text": f"writer {number}"}]} for number in range(WRITERS)]
        return await asyncio.gather(*(call(served.api, "PUT", f"/{NAME}", b"", sent, json.dumps(body).encode()) for body in bodies))

    return served.run(all_at_once())


@pytest.mark.parametrize("kind", ("sqlite", "mongodb"))
def test_forty_writers_of_one_resource_all_succeed_once(kind: str, tmp_path: Path) -> None:
    served = seeded(store_url(kind, tmp_path))
    try:
        assert Counter(answer.status for answer in written(served)) == {200: WRITERS - 1, 201: 1}
        entries = served.get(served.token(), f"{NAME}/_history?_count=100").json["entry"]
        notes = [entry["resource"]["note"][0]["text"] for entry in entries]
        assert sorted(notes) == sorted(f"writer {number}" for number in range(WRITERS))
        assert [int(entry["resource"]["meta"]["versionId"]) for entry in entries] == list(range(WRITERS, 0, -1))
        answers = written(served, **{"if-match": f'W/"{WRITERS}"'})
        assert Counter(answer.status for answer in answers) == {200: 1, 412: WRITERS - 1}
        winner = next(answer for answer in answers if answer.status == 200)
        assert json.loads(served.get(served.token(), NAME).body) == winner.json
    finally:
        served.close()


@pytest.mark.parametrize("kind", ("sqlite", "mongodb"))
def test_conditional_writes_at_the_same_moment_create_one_resource_and_lose_no_patch(kind: str, tmp_path: Path) -> None:
    served = Served(store_url(kind, tmp_path), seeds=False)
    sent = {"authorization": f"Bearer {served.token()}", "content-type": "application/fhir+json"}
    criteria = b"identifier=urn:test|same"
    row = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "identifier": [{"system": "urn:test", "value": "same"}]}

    def at_once(method: str, kind: str, bodies: list[object]) -> list[Answer]:
        async def all_at_once() -> list[Answer]:
            headers = {**sent, "content-type": kind}
            return await asyncio.gather(
                *(call(served.api, method, "/Observation", criteria, headers, json.dumps(body).encode()) for body in bodies)
            )

        return served.run(all_at_once())

    try:
        updates = at_once("PUT", sent["content-type"], [row] * 20)
        assert Counter(answer.status for answer in updates) == {200: 19, 201: 1}
        assert len({answer.json["id"] for answer in updates}) == 1
        patches = at_once(
            "PATCH", "application/json-patch+json", [[{"op": "add", "path": "/note/-", "value": {"text": str(n)}}] for n in range(20)]
        )
        assert Counter(answer.status for answer in patches) == {200: 20}
        (found,) = served.get(served.token(), "Observation?" + criteria.decode()).json["entry"]
        assert sorted(int(note["text"]) for note in found["resource"]["note"]) == list(range(20))
        assert found["resource"]["meta"]["versionId"] == "40"
    finally:
        served.close()
