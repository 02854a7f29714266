"""A reference to a row out of view is not there: not to read, not to search by, not to sort by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.served import Served

HIDDEN = {"reference": "Observation/teen-preliminary-crp"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = Served()
    feed = server.token()
    body = {**server.get(feed, "Observation/teen-hemoglobin").json, "derivedFrom": [HIDDEN]}
    assert server.request(feed, "PUT", "Observation/teen-hemoglobin", body=body).status == 200
    yield server
    server.close()


def found(served: Served, token: str, query: str) -> bool:
    return "teen-hemoglobin" in served.all_ids(token, f"Observation?{query}&_count=1000")


@pytest.mark.parametrize("user", ["parent-a", "backend"])
def test_only_who_sees_the_target_finds_the_row_by_it(served: Served, user: str) -> None:
    sees = user == "backend"
    token = served.token() if sees else served.app_token(user, "teen")
    body: dict[str, Any] = served.get(token, "Observation/teen-hemoglobin").json
    assert ("derivedFrom" in body) is sees
    assert found(served, token, "derived-from=Observation/teen-preliminary-crp") is sees
    assert served.get(token, "Observation?derived-from=Observation/teen-preliminary-crp&_summary=count").json["total"] == int(sees)
    assert bool(served.get(token, "Observation?_id=teen-preliminary-crp&_revinclude=Observation:derived-from").ids()) is sees


def test_what_could_only_be_answered_from_hidden_targets_is_refused_whatever_is_stored(served: Served) -> None:
    parent, feed = served.app_token("parent-a", "teen"), served.token()
    for query in ("derived-from:missing=true", "derived-from:missing=false", "_sort=derived-from", "encounter:missing=true"):
        assert served.get(parent, f"Observation?{query}").status == 400, query
        assert served.get(feed, f"Observation?{query}").status == 200, query
    assert served.get(parent, "Observation?value-quantity:missing=true&_sort=-date,code").status == 200


def test_references_to_what_is_in_view_are_found_as_ever(served: Served) -> None:
    parent = served.app_token("parent-a", "teen")
    assert served.all_ids(parent, "Observation?encounter=Encounter/teen-well-visit")
    assert served.all_ids(parent, "Observation?patient=teen") == served.all_ids(parent, "Observation?subject=Patient/teen") != []
    assert served.all_ids(parent, "Observation?patient=adult") == []
