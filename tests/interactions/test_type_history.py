"""The history of a type and of the system (http://hl7.org/fhir/R4/http.html#history), and its parameters on all three levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served

MINUTE = 60_000_000
ROW, OTHER = "Observation/adult-hemoglobin", "Observation/adult-glucose"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One minute after the other: two versions of a row, one of another, a creation and its deletion."""
    server = seeded()
    token = server.token()

    def act(method: str, path: str, body: Any = None) -> Any:
        server.at(server.parts.clock() + MINUTE)
        answer = server.request(token, method, path, body=body)
        assert answer.status in (200, 201, 204)
        return answer.json if answer.body else None

    row, other = server.get(token, ROW).json, server.get(token, OTHER).json
    plain = {name: value for name, value in row.items() if name not in ("id", "meta", "text")}
    act("PUT", ROW, {**row, "note": [{"text": "two"}]})
    act("PUT", OTHER, {**other, "note": [{"text": "two"}]})
    act("PUT", ROW, {**row, "note": [{"text": "three"}]})
    server.ids = {"made": act("POST", "Observation", plain)["id"]}  # type: ignore[attr-defined]
    act("DELETE", f"Observation/{server.ids['made']}")  # type: ignore[attr-defined]
    yield server
    server.close()


@pytest.fixture(params=["backend", "patient"])
def token(request: pytest.FixtureRequest, served: Served) -> str:
    return served.token() if request.param == "backend" else served.app_token("adult", "adult")


def _pages(served: Served, token: str, address: str) -> list[Any]:
    """The entries of all pages."""
    entries: list[Any] = []
    while address:
        answer = served.get(token, address)
        assert answer.status == 200, answer.body
        bundle = answer.json
        assert bundle["type"] == "history"
        entries += bundle.get("entry", [])
        address = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
        if "total" in bundle:
            assert bundle["total"] == len(bundle.get("entry", [])) and not address
    return entries


def _keys(entries: list[Any]) -> list[tuple[str, str]]:
    return [(entry["fullUrl"].rpartition("/")[2], entry["response"]["etag"]) for entry in entries]


def _times(entries: list[Any]) -> list[str]:
    return [entry["response"]["lastModified"] for entry in entries]


def _of_instances(served: Served, token: str, type: str, entries: list[Any]) -> list[Any]:
    """The histories of all resources that occur in these entries and in a search."""
    ids = {entry["fullUrl"].rpartition("/")[2] for entry in entries} | set(served.all_ids(token, f"{type}?_count=500"))
    return [entry for id in sorted(ids) for entry in _pages(served, token, f"{type}/{id}/_history")]


@pytest.mark.parametrize("type", ["Observation", "Patient", "DiagnosticReport", "MedicationRequest", "Medication"])
def test_entries_are_those_of_the_histories_of_all_resources(served: Served, token: str, type: str) -> None:
    entries = _pages(served, token, f"{type}/_history?_count=200")
    assert sorted(map(repr, entries)) == sorted(map(repr, _of_instances(served, token, type, entries)))
    assert _times(entries) == sorted(_times(entries), reverse=True) and entries


@pytest.mark.parametrize("count", [1, 3, 50])
def test_pages_hold_every_entry_once(served: Served, token: str, count: int) -> None:
    whole = _pages(served, token, "Condition/_history?_count=500")
    assert _pages(served, token, f"Condition/_history?_count={count}") == whole
    assert _pages(served, token, f"Condition/_history?_count={count}&_sort=-_lastUpdated") == whole
    backwards = _pages(served, token, f"Condition/_history?_count={count}&_sort=_lastUpdated")
    assert backwards == whole[::-1]


def test_newest_changes_come_first_with_what_they_were(served: Served, token: str) -> None:
    made = served.ids["made"]  # type: ignore[attr-defined]
    entries = served.get(token, "Observation/_history?_count=5").json["entry"]
    found = [(entry["request"]["method"], entry["request"]["url"], "resource" in entry) for entry in entries]
    assert found == [
        ("DELETE", f"Observation/{made}", False), ("POST", "Observation", True),
        ("PUT", ROW, True), ("PUT", OTHER, True), ("PUT", ROW, True),
    ]  # fmt: skip
    assert served.get(token, "_history?_count=5").json["entry"] == entries


def test_history_of_the_system_has_the_types_that_scopes_cover(served: Served) -> None:
    narrow = served.app_token("adult", "adult", "patient/Observation.r patient/Condition.r patient/Procedure.s")
    entries = _pages(served, narrow, "_history?_count=100")
    assert {entry["fullUrl"].split("/")[-2] for entry in entries} == {"Observation", "Condition"}
    single = [*_pages(served, narrow, "Observation/_history"), *_pages(served, narrow, "Condition/_history")]
    assert sorted(map(repr, entries)) == sorted(map(repr, single))
    assert served.get(narrow, "Procedure/_history").status == 403
    assert served.get(served.app_token("adult", "adult", "patient/Observation.s"), "_history").status == 403


def test_since_begins_at_an_instant(served: Served, token: str) -> None:
    entries = _pages(served, token, "Observation/_history?_count=3")
    since = entries[2]["response"]["lastModified"]
    assert _pages(served, token, f"Observation/_history?_since={since}") == entries[:3]
    assert _pages(served, token, f"_history?_since={since}&_count=2") == entries[:3]
    assert _pages(served, token, "Observation/_history?_since=2999-01-01T00:00:00Z") == []
    bundle = served.get(token, f"Observation/_history?_since={since}").json
    assert bundle["total"] == 3


def test_at_has_what_was_current(served: Served, token: str) -> None:
    rows = _pages(served, token, f"{ROW}/_history")
    made = served.ids["made"]  # type: ignore[attr-defined]
    for entry in rows:
        at = entry["response"]["lastModified"]
        then = _pages(served, token, f"{ROW}/_history?_at={at}")
        assert then == [entry]
        of_type = _pages(served, token, f"Observation/_history?_at={at}&_count=50")
        assert [one for one in of_type if one["fullUrl"] == entry["fullUrl"]] == [entry]
        assert all(one["response"]["lastModified"] <= at for one in of_type)
        assert len({one["fullUrl"] for one in of_type}) == len(of_type)
        assert not any(made in one["fullUrl"] for one in of_type)
    assert _pages(served, token, f"{ROW}/_history?_at=2026-11-21") == rows
    assert _pages(served, token, f"{ROW}/_history?_at=1999") == []


def test_count_zero_has_no_entries_and_no_next_page(served: Served, token: str) -> None:
    bundle = served.get(token, "Observation/_history?_count=0").json
    assert "entry" not in bundle and [link["relation"] for link in bundle["link"]] == ["self"] and "total" not in bundle


@pytest.mark.parametrize("level", [f"{ROW}/", "Observation/", ""])
@pytest.mark.parametrize(
    "query", ["_since=abc", "_count=-1", "_count=x", "_at=never", "_sort=code", "_sort=_lastUpdated,_id", "_page=x", "_colour=red"]
)
def test_bad_parameters_are_refused(served: Served, token: str, level: str, query: str) -> None:
    answer = served.get(token, f"{level}_history?{query}")
    assert answer.status == 400
    if query in ("_colour=red", "_sort=code"):
        assert "Valid" in answer.json["issue"][0]["diagnostics"]


def test_page_link_is_valid_for_its_caller_and_history_alone(served: Served) -> None:
    patient, backend = served.app_token("adult", "adult"), served.token()
    bundle = served.get(patient, "Observation/_history?_count=2").json
    link = next(link["url"] for link in bundle["link"] if link["relation"] == "next").partition("/fhir/")[2]
    assert served.get(patient, link).status == 200
    assert served.get(backend, link).status == 400
    assert served.get(patient, link.replace("_count=2", "_count=3")).status == 400
    assert served.get(patient, link.replace("Observation/", "Condition/")).status == 400
    assert served.get(patient, link.replace("Observation/", "")).status == 400


def test_pages_stay_exact_while_others_write(served: Served, token: str) -> None:
    whole = _keys(_pages(served, token, "Immunization/_history"))
    first = served.get(token, "Immunization/_history?_count=1").json
    backend = served.token()
    name = "Immunization/" + served.get(backend, "Immunization?patient=adult").ids()[0]
    body = served.get(backend, name).json
    served.at(served.parts.clock() + MINUTE)
    assert served.request(backend, "PUT", name, body={**body, "lotNumber": f"L{served.parts.clock()}"}).status == 200
    link = next((link["url"] for link in first["link"] if link["relation"] == "next"), "")
    assert _keys(first["entry"]) + _keys(_pages(served, token, link)) == whole


def test_head_and_batch_answer_as_get(served: Served, token: str) -> None:
    expected = served.get(token, "Condition/_history?_count=3")
    head = served.request(token, "HEAD", "Condition/_history?_count=3")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", expected.headers["content-length"])
    urls = ("Condition/_history?_count=3", "_history?_count=1", "Nope/_history")
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": url}} for url in urls]}
    entries = served.request(token, "POST", "", body=bundle).json["entry"]
    assert entries[0]["resource"] == expected.json and entries[1]["resource"]["type"] == "history"
    assert entries[2]["response"]["status"].startswith("404")
    assert served.request(token, "POST", "Condition/_history", body={}).status == 405


def test_hidden_writes_change_no_history_of_a_proxy(served: Served) -> None:
    backend, proxy = served.token(), served.app_token("parent-a", "teen")
    addresses = [f"{type}_history?_count={count}" for type in ("Observation/", "") for count in (2, 100)]
    addresses += [f"{address}&_sort=_lastUpdated" for address in addresses]
    addresses += ["Observation/_history?_since=2026-11-21T17:00:00Z", "_history?_at=2026-11-21"]
    before = [served.get(proxy, address).body for address in addresses]
    assert b"teen-hiv-screen" not in b"".join(before) and b"teen-hemoglobin" in b"".join(before)
    hidden = served.get(backend, "Observation/teen-hiv-screen").json
    made = served.request(backend, "POST", "Observation", body={**hidden, "status": "final"}).json["id"]
    for method, name in (("PUT", "teen-hiv-screen"), ("DELETE", made)):
        served.at(served.parts.clock() + MINUTE)
        body = {**hidden, "note": [{"text": "later"}]} if method == "PUT" else None
        assert served.request(backend, method, f"Observation/{name}", body=body).status in (200, 204)
    assert [served.get(proxy, address).body for address in addresses] == before
    listed = [entry["fullUrl"].rpartition("/")[2] for entry in _pages(served, backend, "Observation/_history?_count=3")[:3]]
    assert listed[:2] == [made, "teen-hiv-screen"]  # the control: who sees them finds both changes


def test_row_that_becomes_hidden_leaves_the_history_wholly(served: Served) -> None:
    backend, proxy = served.token(), served.app_token("parent-a", "teen")
    row = served.get(backend, "Observation/teen-hemoglobin").json
    assert b"teen-hemoglobin" in served.get(proxy, "Observation/_history?_count=200").body
    code = served.get(backend, "Observation/teen-hiv-screen").json["code"]
    assert served.request(backend, "PUT", "Observation/teen-hemoglobin", body={**row, "code": code}).status == 200
    assert served.get(proxy, "Observation/teen-hemoglobin").status == 404
    assert b"teen-hemoglobin" not in b"".join(served.get(proxy, f"{type}_history?_count=500").body for type in ("Observation/", ""))
    assert served.request(backend, "PUT", "Observation/teen-hemoglobin", body=row).status == 200
