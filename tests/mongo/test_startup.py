"""A server that starts during an election retries interrupted commands.  Without a primary it fails with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.store.mongodb import failures
from tests.mongo.failpoints import ELECTION, failing, failing_set, url_of
from tests.mongo.mongod import ReplicaSet
from tests.mongo.test_server_requirements import prepared

READ, WRITTEN = ("buildInfo", "listCollections", "find"), ("create", "createIndexes", "update", "commitTransaction")
CASES = [(step, how) for how in ELECTION for step in (READ if how != "cannot confirm" else ()) + WRITTEN]


@pytest.fixture(scope="module")
def members() -> Iterator[ReplicaSet]:
    replica_set = failing_set()
    yield replica_set
    replica_set.stop()


@pytest.mark.parametrize(("step", "how"), CASES)
def test_startup_continues_after_an_election(members: ReplicaSet, step: str, how: str) -> None:
    name = f"{step}-{how.replace(' ', '')}"
    with failing(members, {"times": 3}, (step,), how) as failure:
        prepared(url_of(members, name))
    assert failure.struck >= 3
    with MongoClient[dict[str, Any]](url_of(members, name)) as client:
        assert client.get_default_database()["resources"].count_documents({"id": "a"}) == 1


def test_startup_without_primary_fails_with_the_reason(members: ReplicaSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_RETRY_SECONDS", 0.5)
    with failing(members, "alwaysOn", ("createIndexes",), "cannot confirm"):  # noqa: SIM117
        with pytest.raises(OSError, match=r"cannot be reached.*operation was interrupted"):
            prepared(url_of(members, "never"))
