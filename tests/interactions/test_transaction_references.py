"""References in transactions and batches lead where R4 says (http.html#trules, bundle.html#references), or the write fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Answer, Served, store_url

EHR = "http://ehr.example/fhir"
URN, OTHER = "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000001", "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-000000000002"
BASE = "http://127.0.0.1:8000/fhir"


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    for id in ("p1", "p2"):
        body = {
            "resourceType": "Patient",
            "id": id,
            "identifier": [{"system": "urn:test:mrn", "value": id}, {"system": "urn:test:mrn", "value": "both"}],
        }
        assert server.request(server.token(), "PUT", f"Patient/{id}", body=body).status == 201
    yield server
    server.close()


def observation(subject: str, **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": {"reference": subject}, **more}


def entry(resource: dict[str, Any], full_url: str = "", method: str = "POST", **request: str) -> dict[str, Any]:
    url = resource["resourceType"] if method == "POST" else f"{resource['resourceType']}/{resource['id']}"
    known = {"fullUrl": full_url} if full_url else {}
    return {**known, "resource": resource, "request": {"method": method, "url": url, **request}}


def send(served: Served, *entries: dict[str, Any], kind: str = "transaction", token: str = "") -> Answer:
    body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return served.request(token or served.token(), "POST", "", body=body)


def subjects(answer: Answer) -> list[str]:
    return [one["resource"]["subject"]["reference"] for one in answer.json["entry"] if "subject" in one.get("resource", {})]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("base", [EHR, "https://other.example/r4/x", BASE])
def test_relative_reference_is_read_against_the_full_url(served: Served, base: str, method: str) -> None:
    """The entry's Patient has the id of another Patient of this server."""
    patient = entry({"resourceType": "Patient", "id": "p1"}, f"{base}/Patient/p1")
    measured = entry(observation("Patient/p1") | {"id": "t77"}, f"{base}/Observation/t77", method)
    answer = send(served, patient, measured)
    assert answer.status == 200
    new = answer.json["entry"][0]["resource"]["id"]
    assert new != "p1" and subjects(answer) == [f"Patient/{new}"]


def test_reference_to_an_updated_entry_leads_to_it(served: Served) -> None:
    answer = send(
        served,
        entry(observation("Patient/p3"), f"{EHR}/Observation/1"),
        entry({"resourceType": "Patient", "id": "p3"}, f"{EHR}/Patient/p3", "PUT"),
    )
    assert subjects(answer) == ["Patient/p3"]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_relative_reference_below_another_base_is_never_local(served: Served, method: str, kind: str) -> None:
    answer = send(served, entry(observation("Patient/p1") | {"id": "t78"}, f"{EHR}/Observation/t78", method), kind=kind)
    assert subjects(answer) == [f"{EHR}/Patient/p1"]
    own = send(served, entry(observation("Patient/p1") | {"id": "t79"}, f"{BASE}/Observation/t79", method), kind=kind)
    assert subjects(own) == ["Patient/p1"]  # the control


def test_entry_without_full_url_captures_no_reference(served: Served) -> None:
    bare = entry({"resourceType": "Patient", "id": "p1"})
    answer = send(served, bare, entry(observation("Patient/p1")))
    assert answer.status == 400 and "Bundle.entry[1]" in answer.json["issue"][0]["diagnostics"]
    assert subjects(send(served, bare, entry(observation("Patient/p2")))) == ["Patient/p2"]  # the control


@pytest.mark.parametrize("query", ["identifier=urn:test:mrn|p2", "identifier=urn:test:mrn%7Cp2", "_id=p2"])
def test_conditional_reference_leads_to_the_one_match(served: Served, query: str) -> None:
    answer = send(served, entry(observation(f"Patient?{query}")), entry(observation(f"{BASE}/Patient?{query}")))
    assert subjects(answer) == ["Patient/p2", "Patient/p2"]
    id = answer.json["entry"][0]["resource"]["id"]
    assert id in served.all_ids(served.token(), "Observation?patient=p2&_count=1000")


@pytest.mark.parametrize(
    ("reference", "status", "said"),
    [
        ("Patient?identifier=urn:test:mrn|none", 422, "no resource"),
        ("Patient?identifier=urn:test:mrn|both", 422, "several"),
        ("Patient?colour=red", 400, "colour"),
        ("Patient?_count=1", 400, "_count"),
        ("Patient?", 400, "literal reference"),
        ("Colour?x=1", 400, "literal reference"),
        (OTHER, 400, "does not resolve"),
    ],
)
def test_transaction_fails_whole_for_an_unresolved_reference(served: Served, reference: str, status: int, said: str) -> None:
    before = served.get(served.token(), "Patient?_summary=count").json["total"]
    answer = send(served, entry({"resourceType": "Patient"}, URN), entry(observation(reference)))
    assert (answer.status, said in answer.json["issue"][0]["diagnostics"]) == (status, True), answer.body
    assert served.get(served.token(), "Patient?_summary=count").json["total"] == before


def test_hidden_match_of_a_conditional_reference_counts_as_absent(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "child")
    message = {
        "resourceType": "Communication", "status": "completed", "subject": {"reference": "Patient/child"},
        "sender": {"reference": "RelatedPerson/parent-a-of-child"}, "payload": [{"contentString": "x"}],
    }  # fmt: skip
    sent = [entry({**message, "about": [{"reference": f"Observation?identifier=urn:test:lab|{value}"}]}) for value in ("hidden", "nothing")]
    hidden = observation("Patient/teen", identifier=[{"system": "urn:test:lab", "value": "hidden"}])
    assert served.request(feed, "POST", "Observation", body=hidden).status == 201
    answers = [send(served, one, token=parent) for one in sent]
    assert [answer.status for answer in answers] == [422, 422]
    assert answers[0].body.replace(b"hidden", b"nothing") == answers[1].body and b"matches no resource" in answers[1].body
    assert send(served, sent[0]).status == 200  # the control: the feed sees it


@pytest.mark.parametrize("reference", ["Patient?identifier=urn:test:mrn|p2", URN, "urn:oid:1.2.3"])
def test_only_transactions_resolve_conditional_references_and_urns(served: Served, reference: str) -> None:
    row = observation(reference)
    single = served.request(served.token(), "POST", "Observation", body=row)
    update = served.request(served.token(), "PUT", "Observation/t80", body=row | {"id": "t80"})
    batch = send(served, entry({"resourceType": "Patient"}, URN), entry(row), kind="batch")
    assert (single.status, update.status) == (400, 400)
    assert [one["response"]["status"] for one in batch.json["entry"]] == ["201", "400"]


def test_conditional_create_names_another_entry(served: Served) -> None:
    """Sent twice, the Bundle creates nothing the second time: the placeholder means the Patient that the first entry matches."""
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:test:mrn", "value": "once"}]}
    note = {
        "resourceType": "Basic",
        "code": {"text": "x"},
        "subject": {"reference": URN},
        "extension": [{"url": "http://x.example", "valueUri": URN}],
    }
    entries = (
        entry(observation(URN), OTHER, ifNoneExist=f"subject={URN}&code=8867-4"),
        entry(patient, URN, ifNoneExist="Patient?identifier=urn:test:mrn|once"),
        entry(note),
    )
    first, second = send(served, *entries), send(served, *entries)
    assert [[one["response"]["status"] for one in answer.json["entry"]] for answer in (first, second)] == [
        ["201", "201", "201"],
        ["200", "200", "201"],
    ]
    name = f"Patient/{first.json['entry'][1]['resource']['id']}"
    assert subjects(second) == [name, name]
    assert second.json["entry"][2]["resource"]["extension"][0]["valueUri"] == name


def test_conditional_creates_in_a_circle_are_refused(served: Served) -> None:
    entries = (
        entry(observation("Patient/p1"), URN, ifNoneExist=f"derived-from={OTHER}"),
        entry(observation("Patient/p1"), OTHER, ifNoneExist=f"derived-from={URN}"),
    )
    assert send(served, *entries).status == 400


@pytest.mark.parametrize("condition", ["", "?", "&", "Observation?identifier=x", "http://other.example/Patient?identifier=x", "_count=1"])
def test_condition_without_a_parameter_of_the_type_is_refused(served: Served, condition: str) -> None:
    body = {"resourceType": "Patient"}
    assert served.request(served.token(), "POST", "Patient", body=body, headers={"if-none-exist": condition}).status == 400
    assert send(served, entry(body, ifNoneExist=condition)).status == 400


@pytest.mark.parametrize("prefix", ["", "?", "Patient?", f"{BASE}/Patient?"])
def test_condition_may_repeat_the_type_and_the_base(served: Served, prefix: str) -> None:
    headers = {"if-none-exist": f"{prefix}identifier=urn:test:mrn|p2"}
    answer = served.request(served.token(), "POST", "Patient", body={"resourceType": "Patient"}, headers=headers)
    assert (answer.status, answer.json["id"]) == (200, "p2")


def test_new_entries_of_a_batch_cannot_be_referred_to(served: Served) -> None:
    patient = entry({"resourceType": "Patient", "id": "p1"}, f"{EHR}/Patient/p1")
    answer = send(served, patient, entry(observation("Patient/p1"), f"{EHR}/Observation/1"), kind="batch")
    assert [one["response"]["status"] for one in answer.json["entry"]] == ["201", "400"]


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("DELETE", "Patient/p1/_history/1"), ("DELETE", "Patient/p1/$purge"), ("DELETE", "Patient/p1/Observation"), ("DELETE", "a/b"),
        ("DELETE", "Foo/1"), ("DELETE", "Patient?identifier="), ("DELETE", "Patient?colour=red"), ("DELETE", "Patient?_count=1"),
            ("DELETE", "Patient"), ("DELETE", ""), ("DELETE", "/"),
        ("POST", "Patient/$nothing"), ("POST", "Patient/p9"), ("POST", "Patient?x=y"), ("POST", ""), ("POST", "Patient/_search"),
        ("DELETE", "http://other.example/fhir/Patient/p1"), ("DELETE", f"{BASE}Patient/p1"), ("DELETE", f"{BASE}/Patient/p1/$purge"),
        ("DELETE", "Patient/p1?x=y"), ("PUT", "Patient/p1?x=y"), ("PUT", "http://other.example/fhir/Patient/p1"),
        ("PUT", "Patient"), ("PUT", "Patient/p1/_history/1"), ("PUT", "Patient?identifier="), ("PUT", ""), ("GET", "$export"),
        ("GET", "metadata/x/y"), ("GET", ""), ("PATCH", "Patient/p1"), ("DELETE", "Patient/p_1"), ("DELETE", "$export-status/1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_entry_that_is_no_plain_request_is_refused(served: Served, method: str, url: str, kind: str) -> None:
    before = served.get(served.token(), "Patient?_summary=count").json["total"]
    answer = send(served, {"resource": {"resourceType": "Patient", "id": "p1"}, "request": {"method": method, "url": url}}, kind=kind)
    # without a URL the Bundle itself is no valid R4
    status = answer.status if kind == "transaction" or not url else int(answer.json["entry"][0]["response"]["status"])
    assert 400 <= status < 500
    assert served.get(served.token(), "Patient/p1").status == 200
    assert served.get(served.token(), "Patient?_summary=count").json["total"] == before


def test_entries_with_one_full_url_are_refused(served: Served) -> None:
    assert send(served, entry({"resourceType": "Patient"}, URN), entry({"resourceType": "Patient"}, URN)).status == 400
