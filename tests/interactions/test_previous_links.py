"""The ``previous`` link of a page leads back to the page before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.search import cursors
from tests.served import Answer, Served, store_url


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(store_url(request.param, tmp_path), seeds=False)
    feed = made.token()
    for number in range(11):
        body = {"resourceType": "Patient", "id": f"p{number}", "name": [{"family": "Doe" * (1 + number % 3)}] if number % 4 else []}
        body = {name: value for name, value in body.items() if value}
        assert made.request(feed, "PUT", f"Patient/p{number}", body=body).status == 201
    yield made
    made.close()


def link(answer: Answer, relation: str) -> str | None:
    return next((one["url"] for one in answer.json["link"] if one["relation"] == relation), None)


def pages(served: Served, token: str, path: str) -> list[Answer]:
    found = [served.get(token, path)]
    while (following := link(found[-1], "next")) is not None:
        found.append(served.get(token, following))
    return found


@pytest.mark.parametrize(
    "query", ("Patient?_count=2", "Patient?_count=2&_sort=family", "Patient?_count=3&_sort=-family,_id", "?_type=Patient&_count=2")
)
def test_previous_links_lead_through_the_same_pages_back_to_the_first(served: Served, query: str) -> None:
    token = served.token()
    forth = pages(served, token, query)
    assert len(forth) >= 4
    assert link(forth[0], "previous") is None
    back, at = [forth[-1]], forth[-1]
    while (before := link(at, "previous")) is not None:
        at = served.get(token, before)
        back.append(at)
    assert [page.ids() for page in reversed(back)] == [page.ids() for page in forth]
    assert link(forth[1], "previous") == link(forth[0], "first") == link(forth[0], "self")


def test_links_stay_short_and_end_where_no_position_was_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "_MAX_EARLIER", 2)
    token = served.token()
    forth = pages(served, token, "Patient?_count=1")
    at, back = forth[-1], 0
    while (before := link(at, "previous")) is not None:
        at, back = served.get(token, before), back + 1
    assert back == 2
    assert at.ids() == forth[-3].ids()


def test_a_link_of_an_earlier_version_of_the_server_leads_on(served: Served) -> None:
    token = served.token()
    forth = pages(served, token, "Patient?_count=4")
    with pytest.MonkeyPatch.context() as patch:  # only the position was in it
        patch.setattr(cursors.PageLink, "second", staticmethod(lambda end, total: end))
        former = link(served.get(token, "Patient?_count=4"), "next")
    assert former is not None
    second = served.get(token, former)
    assert (second.ids(), link(second, "previous")) == (forth[1].ids(), None)
    third = link(second, "next")
    assert third is not None
    assert served.get(token, third).ids() == forth[2].ids()
