"""Conditional update and delete (http://hl7.org/fhir/R4/http.html#cond-update): alone, in a batch and in a transaction, on each store."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.resources.validate import check
from tests.filled import served_with
from tests.seeded import seeded
from tests.served import Answer, Served

SYSTEM = "urn:test:conditional"
URN = "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-0000000000a1"


served = served_with()


def patient(value: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value}], **more}


def made(served: Served, *values: str) -> list[str]:
    return [served.request(served.token(), "POST", "Patient", body=patient(value)).json["id"] for value in values]


def url(value: str) -> str:
    return f"Patient?identifier={SYSTEM}|{value}"


def total(served: Served, value: str, token: str = "") -> int:
    return int(served.get(token or served.token(), f"{url(value)}&_summary=count").json["total"])


def sent(served: Served, kind: str, method: str, url: str, body: Any = None, token: str = "", **conditions: str) -> tuple[int, Any]:
    """Status and body of one request: alone, or as the entry of a Bundle."""
    token = token or served.token()
    if kind == "alone":
        headers = {"ifMatch": "if-match", "ifNoneMatch": "if-none-match", "ifNoneExist": "if-none-exist"}
        answer = served.request(token, method, url, body=body, headers={headers[name]: text for name, text in conditions.items()})
        return answer.status, answer.json if answer.body else {}
    entry = {"request": {"method": method, "url": url, **conditions}} | ({"resource": body} if body else {})
    answer = bundle(served, entry, kind=kind, token=token)
    if answer.status >= 400:
        return answer.status, answer.json
    only = answer.json["entry"][0]
    return int(only["response"]["status"]), only.get("resource", only["response"].get("outcome", {}))


def bundle(served: Served, *entries: dict[str, Any], kind: str = "transaction", token: str = "") -> Answer:
    return served.request(token or served.token(), "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": list(entries)})


KINDS = pytest.mark.parametrize("kind", ["alone", "batch", "transaction"])


@KINDS
def test_update_without_a_match_creates_and_then_updates_what_it_created(served: Served, kind: str) -> None:
    value = f"new-{kind}"
    first, created = sent(served, kind, "PUT", url(value), patient(value, gender="male"))
    second, updated = sent(served, kind, "PUT", url(value), patient(value, gender="female"))
    assert (first, second) == (201, 200)
    assert created["id"] == updated["id"] and updated["gender"] == "female" and updated["meta"]["versionId"] == "2"
    assert total(served, value) == 1


@KINDS
def test_update_takes_the_id_in_the_body_if_it_fits(served: Served, kind: str) -> None:
    value = f"given-{kind}"
    status, created = sent(served, kind, "PUT", url(value), patient(value, id=value))
    assert (status, created["id"]) == (201, value)
    assert sent(served, kind, "PUT", url(value), patient(value, id=value))[0] == 200
    assert sent(served, kind, "PUT", url(value), patient(value, id="another-id"))[0] == 400
    # the criteria match nothing, and the id is that of a resource that they do not describe
    assert sent(served, kind, "PUT", url("nobody"), patient("nobody", id=value))[0] == 409
    assert served.get(served.token(), f"Patient/{value}").json["identifier"][0]["value"] == value


@KINDS
def test_several_matches_are_refused(served: Served, kind: str) -> None:
    value = f"twice-{kind}"
    made(served, value, value)
    assert sent(served, kind, "PUT", url(value), patient(value))[0] == 412
    assert sent(served, kind, "DELETE", url(value))[0] == 412
    assert total(served, value) == 2


@KINDS
@pytest.mark.parametrize("criteria", ["", "?", "?_format=json", "?identifier=", "?colour=red", "?_count=1", "?_sort=_id"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_url_without_criteria_changes_nothing(served: Served, kind: str, method: str, criteria: str) -> None:
    (id,) = made(served, "untouched")
    body = patient("untouched", gender="male") if method == "PUT" else None
    assert sent(served, kind, method, f"Patient{criteria}", body)[0] == 400
    assert served.get(served.token(), f"Patient/{id}").json["meta"]["versionId"] == "1"


@KINDS
def test_if_match_and_if_none_match_hold_for_the_match(served: Served, kind: str) -> None:
    value = f"tagged-{kind}"
    assert sent(served, kind, "PUT", url(value), patient(value), ifMatch='W/"1"')[0] == 412
    assert sent(served, kind, "DELETE", url(value), ifMatch='W/"1"')[0] == 412
    assert sent(served, kind, "PUT", url(value), patient(value), ifNoneMatch="*")[0] == 201
    assert sent(served, kind, "PUT", url(value), patient(value), ifNoneMatch="*")[0] == 412
    assert sent(served, kind, "PUT", url(value), patient(value), ifMatch='W/"7"')[0] == 412
    assert sent(served, kind, "PUT", url(value), patient(value), ifNoneExist=url(value))[0] == 400
    assert sent(served, kind, "PUT", url(value), patient(value), ifMatch='W/"1"')[0] == 200
    assert sent(served, kind, "DELETE", url(value), ifMatch='W/"1"')[0] == 412
    assert sent(served, kind, "DELETE", url(value), ifMatch='W/"2"')[0] == 204
    assert total(served, value) == 0


@KINDS
def test_delete_removes_the_one_match_and_none_is_no_error(served: Served, kind: str) -> None:
    value = f"gone-{kind}"
    (id,) = made(served, value)
    assert [sent(served, kind, "DELETE", url(value))[0] for _ in range(2)] == [204, 204]
    assert served.get(served.token(), f"Patient/{id}").status == 410


@KINDS
def test_setting_lets_a_delete_remove_several(kind: str) -> None:
    server = seeded(max_conditional_deletes=3)
    try:
        made(server, *["many"] * 4)
        assert sent(server, kind, "DELETE", url("many"))[0] == 412
        assert total(server, "many") == 4
        assert sent(server, kind, "DELETE", f"Patient/{made(server, 'many')[0]}")[0] == 204
        (last, *_) = server.all_ids(server.token(), url("many"))
        assert sent(server, kind, "DELETE", f"Patient/{last}")[0] == 204
        assert sent(server, kind, "DELETE", url("many"), ifMatch='W/"1"')[0] == 412
        assert sent(server, kind, "DELETE", url("many"))[0] == 204
        assert total(server, "many") == 0
        statement = server.get(None, "metadata").json
        assert statement["rest"][0]["resource"][0]["conditionalDelete"] == "multiple"
    finally:
        server.close()


def test_capability_statement_says_what_is_conditional(served: Served) -> None:
    resource = served.get(None, "metadata").json["rest"][0]["resource"][0]
    assert (resource["conditionalUpdate"], resource["conditionalDelete"]) == (True, "single")


def test_references_to_a_conditional_entry_lead_to_its_match(served: Served) -> None:
    (id,) = made(served, "linked")
    observation = {
        "resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": URN},
        "extension": [{"url": "http://x.example", "valueUri": URN}],
    }  # fmt: skip
    change = {"fullUrl": URN, "resource": patient("linked", active=True), "request": {"method": "PUT", "url": url("linked")}}
    create = {"resource": observation, "request": {"method": "POST", "url": "Observation"}}
    answer = bundle(served, create, change)
    row, subject = (one["resource"] for one in answer.json["entry"])
    assert row["subject"]["reference"] == row["extension"][0]["valueUri"] == f"Patient/{id}" and subject["id"] == id
    fresh = [one | {"resource": one["resource"]} for one in (create, change)]
    fresh[1] = {"fullUrl": URN, "resource": patient("fresh"), "request": {"method": "PUT", "url": url("fresh")}}
    answer = bundle(served, *fresh)
    assert answer.json["entry"][0]["resource"]["subject"]["reference"] == f"Patient/{answer.json['entry'][1]['resource']['id']}"
    assert [one["response"]["status"] for one in answer.json["entry"]] == ["201", "201"]


def test_criteria_may_name_another_entry(served: Served) -> None:
    """The Bundle can be sent again: the placeholder means what the other entry became."""
    coded = {"status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}}
    row = {"resourceType": "Observation", **coded, "subject": {"reference": URN}}
    entries = (
        {"resource": row, "request": {"method": "PUT", "url": f"Observation?subject={URN}&code=8867-4"}},
        {"fullUrl": URN, "resource": patient("named"), "request": {"method": "PUT", "url": url("named")}},
    )
    first, second = bundle(served, *entries), bundle(served, *entries)
    assert [[one["response"]["status"] for one in answer.json["entry"]] for answer in (first, second)] == [["201"] * 2, ["200"] * 2]
    assert first.json["entry"][0]["resource"]["id"] == second.json["entry"][0]["resource"]["id"]
    removed = bundle(served, {"request": {"method": "DELETE", "url": f"Observation?subject={URN}&code=8867-4"}}, entries[1])
    assert removed.json["entry"][0]["response"]["status"] == "204"
    assert served.get(served.token(), f"Observation/{first.json['entry'][0]['resource']['id']}").status == 410


@pytest.mark.parametrize("other", ["PUT id", "DELETE id", "PUT criteria", "DELETE criteria"])
@pytest.mark.parametrize("mine", ["PUT", "DELETE"])
def test_identities_may_not_overlap(served: Served, mine: str, other: str) -> None:
    value = f"overlap-{mine}-{other.replace(' ', '-')}"
    (id,) = made(served, value)

    def entry(method: str, url: str) -> dict[str, Any]:
        named = {"id": id} if "?" not in url else {}
        return {"request": {"method": method, "url": url}} | ({"resource": patient(value, **named)} if method == "PUT" else {})

    method, way = other.split()
    second = entry(method, f"Patient/{id}" if way == "id" else f"Patient?_id={id}")
    assert bundle(served, second, entry(mine, url(value))).status == 400
    assert served.get(served.token(), f"Patient/{id}").json["meta"]["versionId"] == "1"


def test_two_entries_do_not_create_the_same_resource(served: Served) -> None:
    same = {"resource": patient("both"), "request": {"method": "PUT", "url": url("both")}}
    assert bundle(served, same, same).status == 400
    create = {"resource": patient("both"), "request": {"method": "POST", "url": "Patient"}}
    assert bundle(served, create, same).status == 400
    assert total(served, "both") == 0


def test_batch_entries_cannot_refer_to_a_conditional_entry(served: Served) -> None:
    row = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": URN}}
    answer = bundle(
        served,
        {"fullUrl": URN, "resource": patient("lonely"), "request": {"method": "PUT", "url": url("lonely")}},
        {"resource": row, "request": {"method": "POST", "url": "Observation"}},
        kind="batch",
    )
    assert [one["response"]["status"] for one in answer.json["entry"]] == ["201", "400"]


@pytest.mark.parametrize(("scope", "status"), [("us", 403), ("u", 403), ("cu", 403), ("cs", 403), ("cus", 201)])
def test_each_scope_is_needed_for_what_happens(served: Served, scope: str, status: int) -> None:
    token = served.token(scope=f"system/Patient.{scope}")
    value = f"scope-{scope}"
    assert sent(served, "alone", "PUT", url(value), patient(value), token)[0] == status
    (id,) = made(served, f"known-{scope}")
    changed = sent(served, "alone", "PUT", url(f"known-{scope}"), patient(f"known-{scope}"), token)[0]
    assert changed == (200 if {"u", "s"} <= {*scope} else 403)
    deleting = served.token(scope="system/Patient.d")
    assert sent(served, "alone", "DELETE", url(f"known-{scope}"), token=deleting)[0] == 403
    assert sent(served, "alone", "DELETE", url(f"known-{scope}"), token=served.token(scope="system/Patient.ds"))[0] == 204
    assert served.get(served.token(), f"Patient/{id}").status == 410


@KINDS
def test_hidden_match_and_hidden_id_count_as_absent(served: Served, kind: str) -> None:
    """A clinician's app has a scope for final observations alone: for it the preliminary one does not exist."""
    narrow = "user/Observation.cruds?status=final"
    clinician = served.token("demo-public", f"{narrow} user/Patient.rs user/Practitioner.rs", "clinician")
    row = {"resourceType": "Observation", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}
    for name, status in ((f"seen-{kind}", "final"), (f"hid-{kind}", "preliminary")):
        sent_row = {**row, "id": name, "identifier": [{"system": SYSTEM, "value": name}], "status": status}
        assert served.request(served.token(), "PUT", f"Observation/{name}", body=sent_row).status == 201
    assert [served.get(clinician, f"Observation/{name}-{kind}").status for name in ("seen", "hid")] == [200, 404]

    def change(value: str, **more: Any) -> tuple[int, Any]:
        changed = {**row, "status": "final", "valueString": "new", **more}
        return sent(served, kind, "PUT", f"Observation?identifier={SYSTEM}|{value}", changed, clinician)

    assert change(f"seen-{kind}")[0] == 200  # the control
    assert (change(f"hid-{kind}")[0], change("never")[0]) == (201, 201)
    assert served.get(served.token(), f"Observation/hid-{kind}").json["meta"]["versionId"] == "1"
    with_id, unknown = change("never", id=f"hid-{kind}"), change("never", id=f"not-{kind}")
    assert with_id[0] == unknown[0] == 404
    assert str(with_id[1]).replace(f"hid-{kind}", "") == str(unknown[1]).replace(f"not-{kind}", "")
    deleted = [sent(served, kind, "DELETE", f"Observation?identifier={SYSTEM}|{value}", token=clinician) for value in (f"hid-{kind}", "x")]
    assert deleted[0] == deleted[1] and deleted[0][0] == 403


def test_audit_log_names_criteria_and_rows_of_a_conditional_write(served: Served) -> None:
    (id,) = made(served, "audited")
    assert sent(served, "alone", "PUT", url("audited"), patient("audited"))[0] == 200
    served.run(served.parts.auditor.flush())
    events = [json.loads(line)["event"] for _, line in served.run(served.parts.store.read_log(LOG_NAME))]
    about = [event for event in events if {"reference": f"Patient/{id}"} in [one.get("what") for one in event.get("entity", ())]]
    (event,) = [event for event in about if event["action"] == "U"]
    assert check("AuditEvent", event) == ()
    assert b64decode(event["entity"][0]["query"]).decode() == url("audited")
    assert event["entity"][1]["what"] == {"reference": f"Patient/{id}"}
