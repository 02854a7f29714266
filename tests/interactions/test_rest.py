"""The RESTful interactions as a client uses them (http://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Served


def observation(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
        "subject": {"reference": "Patient/adult"},
        **more,
    }


def test_created_resource_is_readable_at_its_location(served: Served, feed: str) -> None:
    created = served.request(feed, "POST", "Observation", body=observation())
    assert created.status == 201 and created.headers["etag"] == 'W/"1"'
    assert served.get(feed, created.headers["location"]).body == created.body
    assert served.get(feed, f"Observation/{created.json['id']}").headers["last-modified"] == created.headers["last-modified"]


def test_create_replaces_the_client_supplied_id(served: Served, feed: str) -> None:
    created = served.request(feed, "POST", "Observation", body=observation(id="mine"))
    assert created.status == 201 and created.json["id"] != "mine"


def test_trusted_client_creates_by_put_with_its_own_id(served: Served, feed: str) -> None:
    assert served.request(feed, "PUT", "Observation/chosen-id", body=observation(id="chosen-id")).status == 201
    assert served.request(feed, "PUT", "Observation/chosen-id", body=observation(id="chosen-id")).status == 200


def test_update_with_wrong_if_match_returns_412(served: Served, feed: str) -> None:
    id = served.request(feed, "POST", "Observation", body=observation()).json["id"]
    changed = observation(id=id, status="amended")
    assert served.request(feed, "PUT", f"Observation/{id}", body=changed, headers={"If-Match": 'W/"2"'}).status == 412
    assert served.request(feed, "PUT", f"Observation/{id}", body=changed, headers={"If-Match": 'W/"1"'}).status == 200
    assert served.get(feed, f"Observation/{id}").json["status"] == "amended"


def test_old_versions_are_readable_and_history_is_newest_first(served: Served, feed: str) -> None:
    id = served.request(feed, "POST", "Observation", body=observation()).json["id"]
    served.request(feed, "PUT", f"Observation/{id}", body=observation(id=id, status="amended"))
    served.request(feed, "DELETE", f"Observation/{id}")
    assert served.get(feed, f"Observation/{id}/_history/1").json["status"] == "final"
    assert served.get(feed, f"Observation/{id}/_history/3").status == 410
    assert served.get(feed, f"Observation/{id}/_history/4").status == 404
    history = served.get(feed, f"Observation/{id}/_history").json
    assert [entry["request"]["method"] for entry in history["entry"]] == ["DELETE", "PUT", "POST"]


def test_deleted_resource_returns_410_until_recreated(served: Served, feed: str) -> None:
    id = served.request(feed, "POST", "Observation", body=observation()).json["id"]
    assert served.request(feed, "DELETE", f"Observation/{id}").status == 204
    assert served.get(feed, f"Observation/{id}").status == 410
    assert id not in served.all_ids(feed, "Observation?patient=adult&_count=100")
    assert served.request(feed, "DELETE", f"Observation/{id}").status == 204
    assert served.request(feed, "PUT", f"Observation/{id}", body=observation(id=id)).status == 201
    assert served.get(feed, f"Observation/{id}").json["meta"]["versionId"] == "3"


def test_matching_if_none_match_returns_304(served: Served, feed: str) -> None:
    answer = served.request(feed, "GET", "Patient/adult", headers={"If-None-Match": 'W/"1"'})
    assert (answer.status, answer.body) == (304, b"")


def test_head_returns_the_get_headers_without_body(served: Served, feed: str) -> None:
    got, head = served.get(feed, "Patient/adult"), served.request(feed, "HEAD", "Patient/adult")
    assert head.body == b"" and head.headers == got.headers and head.status == 200


def test_prefer_return_selects_the_write_response(served: Served, feed: str) -> None:
    minimal = served.request(feed, "POST", "Observation", body=observation(), headers={"Prefer": "return=minimal"})
    outcome = served.request(feed, "POST", "Observation", body=observation(), headers={"Prefer": "return=OperationOutcome"})
    assert (minimal.status, minimal.body) == (201, b"") and minimal.headers["location"]
    assert outcome.json["resourceType"] == "OperationOutcome"


def test_conditional_create_returns_the_existing_resource(served: Served, feed: str) -> None:
    body = observation(identifier=[{"system": "http://lab.example", "value": "once"}])
    condition = {"If-None-Exist": "identifier=http://lab.example|once"}
    first = served.request(feed, "POST", "Observation", body=body, headers=condition)
    second = served.request(feed, "POST", "Observation", body=body, headers=condition)
    assert (first.status, second.status) == (201, 200) and first.json["id"] == second.json["id"]


def test_unresolved_reference_returns_422_and_stores_nothing(served: Served, feed: str) -> None:
    before = served.get(feed, "Observation?_summary=count").json["total"]
    answer = served.request(feed, "POST", "Observation", body=observation(subject={"reference": "Patient/nobody"}))
    assert answer.status == 422 and "Patient/nobody" in answer.json["issue"][0]["diagnostics"]
    assert served.get(feed, "Observation?_summary=count").json["total"] == before


def test_transaction_is_atomic_and_batch_is_not(served: Served, feed: str) -> None:
    good = {"resource": observation(), "request": {"method": "POST", "url": "Observation"}}
    bad = {"resource": observation(subject={"reference": "Patient/nobody"}), "request": {"method": "POST", "url": "Observation"}}
    before = served.get(feed, "Observation?_summary=count").json["total"]
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [good, bad]})
    assert answer.status == 422 and "Bundle.entry[1]" in answer.json["issue"][0]["diagnostics"]
    assert served.get(feed, "Observation?_summary=count").json["total"] == before
    batch = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": [good, bad]})
    assert [entry["response"]["status"] for entry in batch.json["entry"]] == ["201", "422"]
    assert served.get(feed, "Observation?_summary=count").json["total"] == before + 1


def test_page_links_return_every_result_once(served: Served, feed: str) -> None:
    whole = served.all_ids(feed, "Observation?_count=1000")
    assert served.all_ids(feed, "Observation?_count=3") == whole and len(whole) > 50
    by_date = served.all_ids(feed, "Observation?_sort=-date,_id&_count=7")
    assert sorted(by_date) == sorted(whole) and by_date != whole


@pytest.mark.parametrize("type", ["Basic", "Slot", "ValueSet", "MolecularSequence", "Subscription"])
def test_every_type_of_r4_is_served(served: Served, feed: str, type: str) -> None:
    assert served.get(feed, f"{type}?_count=1").status == 200
    assert served.get(feed, f"{type}/nothing").status == 404


_VALUES = {
    "token": "x", "reference": "Patient/x", "string": "x", "date": "2020", "quantity": "1", "number": "1", "uri": "urn:x",
}  # fmt: skip


def test_the_capability_statement_is_public_valid_and_true(served: Served, feed: str) -> None:
    from fhir_server.resources.validate import check

    statement = served.get(None, "metadata").json
    assert check("CapabilityStatement", statement) == ()
    observation_entry = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Observation")
    for parameter in observation_entry["searchParam"]:
        name = parameter["name"]
        pair = {"concept": "x$y", "date": "x$2020"}.get(name.rpartition("-")[2], "x$1")
        value = pair if parameter["type"] == "composite" else _VALUES[parameter["type"]]
        assert served.request(feed, "GET", f"Observation?{parameter['name']}={value}", headers={"Prefer": "handling=strict"}).status == 200
    for name in observation_entry["searchInclude"]:
        assert served.get(feed, f"Observation?_include={name}&_count=1").status == 200


def test_request_without_token_returns_401(served: Served) -> None:
    for method, path in (
        ("GET", "Patient/adult"),
        ("GET", "Patient"),
        ("POST", "Patient/_search"),
        ("DELETE", "Patient/adult"),
        ("GET", "Patient/adult/$everything"),
    ):
        answer = served.request(None, method, path, form=() if path.endswith("_search") else None)
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer"), path
    assert served.get("made-up-token", "Patient/adult").status == 401
    assert served.get(None, f"Patient/adult?access_token={served.token()}").status == 401


def test_type_outside_scope_returns_403_regardless_of_data(served: Served) -> None:
    token = served.app_token("adult", "adult", "patient/Observation.rs")
    assert served.get(token, "Observation?_count=1").status == 200
    assert served.get(token, "MedicationStatement").status == 403
    assert served.get(token, "MedicationStatement/nothing").body == served.get(token, "MedicationStatement/nothing-else").body
    assert served.request(token, "POST", "Observation", body=observation()).status == 403


def test_granular_scope_limits_read_history_and_search(served: Served) -> None:
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    token = served.app_token("adult", "adult", f"patient/Observation.rs?category={category}|vital-signs")
    vitals = served.all_ids(token, "Observation?_count=3")
    assert "adult-blood-pressure" in vitals and "adult-hemoglobin" not in vitals
    assert served.get(token, "Observation/adult-hemoglobin").status == 404
    assert served.get(token, "Observation/adult-hemoglobin/_history").status == 404
    assert served.get(token, "Observation?code=718-7").json["total"] == 0


def test_references_to_conditional_create_use_existing_resource(served: Served, feed: str) -> None:
    identifier = [{"system": "http://hospital.example", "value": "known"}]
    there = served.request(feed, "POST", "Patient", body={"resourceType": "Patient", "identifier": identifier}).json["id"]
    entries = [
        {
            "fullUrl": "urn:uuid:1",
            "resource": {"resourceType": "Patient", "identifier": identifier},
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=http://hospital.example|known"},
        },
        {
            "fullUrl": "urn:uuid:2",
            "resource": observation(subject={"reference": "urn:uuid:1"}),
            "request": {"method": "POST", "url": "Observation"},
        },
        {"request": {"method": "GET", "url": f"Observation?patient={there}"}},
    ]
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": entries}).json
    assert [entry["response"]["status"] for entry in answer["entry"]] == ["200", "201", "200"]
    created = answer["entry"][1]["resource"]
    assert created["subject"]["reference"] == f"Patient/{there}"
    assert answer["entry"][2]["resource"]["entry"][0]["resource"]["id"] == created["id"]


def test_absolute_reference_to_this_server_is_treated_as_local(served: Served, feed: str) -> None:
    base = served.settings.base
    body = observation(subject={"reference": f"{base}/Patient/adult"}, encounter={"reference": f"{base}/Encounter/adult-mh-visit"})
    created = served.request(feed, "POST", "Observation", body=body)
    assert created.json["subject"]["reference"] == "Patient/adult"
    proxy = served.app_token("proxy-standard", "adult")
    assert served.get(proxy, f"Observation/{created.json['id']}").status == 404  # it inherits the label of the Encounter
    assert created.json["id"] in served.all_ids(feed, "Observation?patient=adult&_count=1000")
