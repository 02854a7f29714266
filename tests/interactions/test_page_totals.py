"""Matches are counted once for all pages of a search: later pages state the total that the caller received with their link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.access.view import View
from tests.interactions.test_previous_links import link
from tests.served import Answer, Served, store_url

CODE = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
OWN = "Observation?patient=teen&code=http://loinc.org|718-7&_count=2"


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(store_url(request.param, tmp_path))
    for number in range(5):
        _put(made, f"added-{number}")
    yield made
    made.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The types whose rows were counted."""
    types: list[str] = []
    exact = View.count

    async def count(self: View, type: str, *what: Any, **how: Any) -> int:
        types.append(type)
        return await exact(self, type, *what, **how)

    monkeypatch.setattr(View, "count", count)
    return types


def _put(served: Served, id: str, **more: Any) -> None:
    body = {"resourceType": "Observation", "id": id, "status": "final", "code": CODE, "subject": {"reference": "Patient/teen"}, **more}
    assert served.request(served.token(), "PUT", f"Observation/{id}", body=body).status in (200, 201)


def _pages(served: Served, token: str, path: str) -> list[Answer]:
    found = [served.get(token, path)]
    while (following := link(found[-1], "next")) is not None:
        found.append(served.get(token, following))
    return found


def _totals(pages: list[Answer]) -> list[int | None]:
    return [page.json.get("total") for page in pages]


@pytest.mark.parametrize("query", (OWN, OWN + "&_sort=-date", OWN + "&_total=estimate"))
def test_pages_state_one_total_and_it_is_counted_once(served: Served, counted: list[str], query: str) -> None:
    pages = _pages(served, served.app_token("parent-a", "teen"), query)
    rows = sum(len(page.ids()) for page in pages)
    assert len(pages) > 2
    assert _totals(pages) == [rows] * len(pages)
    assert len(counted) <= 1  # SQLite knows the total of a search that finds few rows


def test_page_that_a_previous_link_leads_to_is_not_counted_either(served: Served, counted: list[str]) -> None:
    token = served.app_token("parent-a", "teen")
    third = _pages(served, token, OWN)[2]
    before = link(third, "previous")
    assert before is not None
    assert served.get(token, before).json["total"] == third.json["total"]
    assert len(counted) <= 1


def test_exact_total_is_counted_for_each_page(served: Served, counted: list[str]) -> None:
    token = served.app_token("parent-a", "teen")
    first = served.get(token, OWN + "&_total=accurate")
    _put(served, "later")
    second = served.get(token, str(link(first, "next")))
    third = served.get(token, str(link(second, "next")))
    assert second.json["total"] == third.json["total"] == first.json["total"] + 1
    assert len(counted) >= 2


def test_no_total_is_carried_for_who_asks_for_none(served: Served, counted: list[str]) -> None:
    assert set(_totals(_pages(served, served.app_token("parent-a", "teen"), OWN + "&_total=none"))) == {None}
    assert _totals(_pages(served, served.token(), OWN)) == [None] * 3  # it is not given unasked to who sees many patients
    assert counted == []


def test_row_hidden_between_two_pages_is_in_no_page_and_in_no_new_total(served: Served) -> None:
    token = served.app_token("parent-a", "teen")
    first = served.get(token, OWN)
    _put(served, "added-4", meta={"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "STD"}]})
    later = [served.get(token, str(link(first, "next")))]
    while (following := link(later[-1], "next")) is not None:
        later.append(served.get(token, following))
    again = served.get(token, OWN)
    assert "added-4" not in {id for page in (first, *later) for id in page.ids()}
    assert _totals(later) == [first.json["total"]] * len(later)  # the caller has received it with the first page
    assert again.json["total"] == first.json["total"] - 1


def test_total_in_a_link_is_for_the_caller_alone(served: Served) -> None:
    following = str(link(served.get(served.app_token("parent-a", "teen"), OWN), "next"))
    assert served.get(served.app_token("parent-a", "teen"), following).status == 400  # the same person, by another authorization
    assert served.get(served.token(), following).status == 400
