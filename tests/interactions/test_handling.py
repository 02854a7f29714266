"""What a parameter that the server does not know does: it is an error, or it is named (http://hl7.org/fhir/R4/search.html#errors)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.seeded import seeded
from tests.served import Answer, Served

UNKNOWN = ("Observation?colour=red", "?_type=Observation&colour=red", "Patient/adult/Observation?colour=red", "Patient/adult?colour=red",
           "Patient/adult/_history?colour=red", "Patient/adult/$everything?colour=red")  # fmt: skip
LENIENT = {"Prefer": "handling=lenient"}


@pytest.fixture(scope="module")
def lenient() -> Iterator[Served]:
    server = seeded(search_handling="lenient")
    yield server
    server.close()


def notes(answer: Answer) -> list[str]:
    """The texts of the OperationOutcomes in a searchset."""
    outcomes = [entry["resource"] for entry in answer.json.get("entry", []) if entry.get("search", {}).get("mode") == "outcome"]
    return [issue["diagnostics"] for outcome in outcomes for issue in outcome["issue"]]


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_parameter_is_an_error_that_names_it(served: Served, feed: str, path: str) -> None:
    answer = served.get(feed, path)
    assert answer.status == 400 and "colour" in answer.json["issue"][0]["diagnostics"]
    assert served.get(feed, path.replace("colour=red", "_format=json")).status == 200


@pytest.mark.parametrize("path", UNKNOWN)
def test_lenient_handling_ignores_an_unknown_parameter(served: Served, feed: str, path: str) -> None:
    assert served.request(feed, "GET", path, headers=LENIENT).status == 200


def test_lenient_search_names_what_it_ignores_and_leaves_it_out_of_its_links(served: Served, feed: str) -> None:
    answer = served.request(feed, "GET", "Observation?colour=red&code=718-7&_count=1", headers=LENIENT)
    assert answer.headers["preference-applied"] == "handling=lenient"
    (note,) = notes(answer)
    assert "'colour'" in note
    link = next(link["url"] for link in answer.json["link"] if link["relation"] == "self")
    assert "colour" not in link and "code=718-7" in link
    assert notes(served.request(feed, "GET", "Observation?code=718-7", headers=LENIENT)) == []


def test_setting_decides_for_requests_that_do_not_say(lenient: Served) -> None:
    token = lenient.token()
    answer = lenient.get(token, "Observation?colour=red")
    assert answer.status == 200 and notes(answer) and "preference-applied" not in answer.headers
    strict = lenient.request(token, "GET", "Observation?colour=red", headers={"Prefer": "handling=strict"})
    assert strict.status == 400
    unsaid = lenient.request(token, "GET", "Observation?colour=red", headers={"Prefer": "handling=odd"})
    assert unsaid.status == 200


def test_error_of_one_entry_stays_in_a_batch(served: Served, feed: str) -> None:
    entries = [{"request": {"method": "GET", "url": url}} for url in ("Observation?colour=red", "Observation?code=718-7")]
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [entry["response"]["status"] for entry in answer.json["entry"]] == ["400", "200"]


def test_count_of_fhirpy_is_answered(served: Served, feed: str) -> None:
    answer = served.get(feed, "Observation?patient=adult&_count=1&_totalMethod=count")
    assert answer.json["total"] == served.get(feed, "Observation?patient=adult&_summary=count").json["total"] > 1
