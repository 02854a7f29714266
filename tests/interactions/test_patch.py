"""PATCH with JSON Patch and FHIRPath Patch: alone, in a batch and in a transaction, on each store; what is hidden stays."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from fhir_server.interactions import patch
from tests.filled import served_with
from tests.served import Answer, Served

SYSTEM = "urn:test:patch"
URN = "urn:uuid:6f1d9c56-0f4e-4b7a-9d0e-0000000000b1"
TYPE = "application/json-patch+json"
KINDS = pytest.mark.parametrize("kind", ["alone", "batch", "transaction"])


served = served_with()


def op(op: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **more}


def binary(operations: Any, content_type: str = TYPE) -> dict[str, Any]:
    text = operations if isinstance(operations, bytes) else json.dumps(operations).encode()
    return {"resourceType": "Binary", "contentType": content_type, "data": b64encode(text).decode()}


def bundle(served: Served, *entries: dict[str, Any], kind: str = "transaction", token: str = "") -> Answer:
    return served.request(token or served.token(), "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": list(entries)})


def entry(url: str, operations: Any, **request: str) -> dict[str, Any]:
    return {"resource": binary(operations), "request": {"method": "PATCH", "url": url, **request}}


def patched(served: Served, kind: str, url: str, *operations: Any, token: str = "", **conditions: str) -> tuple[int, Any]:
    """Status and body of a patch: alone, or as the entry of a Bundle."""
    token = token or served.token()
    if kind == "alone":
        headers = {"content-type": TYPE} | {name.replace("M", "-m").lower(): text for name, text in conditions.items()}
        answer = served.request(token, "PATCH", url, body=json.dumps(operations).encode(), headers=headers)
        return answer.status, answer.json if answer.body else {}
    answer = bundle(served, entry(url, operations, **conditions), kind=kind, token=token)
    if answer.status >= 400:
        return answer.status, answer.json
    only = answer.json["entry"][0]
    return int(only["response"]["status"]), only.get("resource", only["response"].get("outcome", {}))


def observation(id: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"},
        "identifier": [{"system": SYSTEM, "value": id}], **more,
    }  # fmt: skip


def put(served: Served, row: dict[str, Any]) -> None:
    assert served.request(served.token(), "PUT", f"{row['resourceType']}/{row['id']}", body=row).status in (200, 201)


@KINDS
def test_patch_changes_what_it_names_and_keeps_all_digits(served: Served, kind: str) -> None:
    text = json.dumps(observation(f"p-{kind}")).encode()[:-1] + b',"valueQuantity":{"value":1.50,"unit":"mg"},"note":[{"text":"a"}]}'
    assert served.request(served.token(), "PUT", f"Observation/p-{kind}", body=text).status == 201
    operations = [
        op("test", "/status", value="final"),
        op("replace", "/status", value="amended"),
        op("add", "/note/0", value={"text": "b"}),
    ]
    status, row = patched(served, kind, f"Observation/p-{kind}", *operations)
    assert (status, row["status"], [note["text"] for note in row["note"]]) == (200, "amended", ["b", "a"])
    stored = served.get(served.token(), f"Observation/p-{kind}")
    assert b'"value":1.50' in stored.body and stored.json["meta"]["versionId"] == "2" == row["meta"]["versionId"]


@KINDS
def test_patch_that_cannot_be_done_changes_nothing(served: Served, kind: str) -> None:
    put(served, observation(f"r-{kind}"))
    url = f"Observation/r-{kind}"
    refused = (
        [op("test", "/status", value="draft"), op("remove", "/subject")], [op("remove", "/note")], [op("remove", "/status")],
        [op("replace", "/status", value="no-code")], [op("replace", "/id", value="other")], [op("add", "/colour", value="red")],
        [op("replace", "/resourceType", value="Patient")], [op("add", "/subject", value={"reference": "Patient/nobody"})],
        [op("add", "/note", value=[])], [op("replace", "", value=1)], [op("add", "/derivedFrom", value=[{"reference": URN}])],
    )  # fmt: skip
    before = served.get(served.token(), url).body
    for operations in refused:
        status, outcome = patched(served, kind, url, *operations)
        assert (status, outcome["resourceType"]) == (422, "OperationOutcome"), operations
    assert patched(served, kind, url, op("spam", "/x"))[0] == 400
    assert patched(served, kind, "Observation/nobody", op("remove", "/note"))[0] == 404
    assert patched(served, kind, f"{url}?x=y", op("remove", "/note"))[0] == 400
    assert served.get(served.token(), url).body == before


@KINDS
def test_preconditions_of_a_patch(served: Served, kind: str) -> None:
    put(served, observation(f"m-{kind}"))
    change = op("add", "/valueString", value="x")
    assert patched(served, kind, f"Observation/m-{kind}", change, ifMatch='W/"7"')[0] == 412
    assert patched(served, kind, f"Observation/m-{kind}", change, ifMatch='W/"1"')[0] == 200
    assert patched(served, kind, f"Observation/m-{kind}", change, ifMatch='W/"1"')[0] == 412


@KINDS
def test_conditional_patch_needs_exactly_one_match(served: Served, kind: str) -> None:
    for name in ("one", "two"):
        row = observation(f"c-{name}-{kind}")
        put(served, row | {"identifier": [*row["identifier"], {"system": SYSTEM, "value": f"both-{kind}"}]})
    change = op("add", "/valueString", value="x")
    url = f"Observation?identifier={SYSTEM}|"
    assert [patched(served, kind, url + value, change)[0] for value in (f"c-one-{kind}", f"both-{kind}", "nobody")] == [200, 412, 404]
    assert patched(served, kind, "Observation", change)[0] == 400
    assert patched(served, kind, url + f"c-one-{kind}", change, ifMatch='W/"1"')[0] == 412


@pytest.mark.parametrize("content_type", ["text/turtle", "text/plain", "", "application/merge-patch+json"])
def test_other_formats_are_refused_and_the_taken_ones_named(served: Served, content_type: str) -> None:
    put(served, observation("formats"))
    answer = served.request(served.token(), "PATCH", "Observation/formats", body=b"[]", headers={"content-type": content_type})
    assert (answer.status, answer.headers["accept-patch"]) == (415, ", ".join(patch.FORMATS))
    in_bundle = bundle(served, {"resource": binary([], content_type), "request": {"method": "PATCH", "url": "Observation/formats"}})
    assert in_bundle.status in (400, 415)
    options = served.request(None, "OPTIONS", "Observation/formats")
    assert options.headers["accept-patch"] == ", ".join(patch.FORMATS) and "PATCH" in options.headers["access-control-allow-methods"]
    statement = served.get(None, "metadata").json
    assert statement["patchFormat"] == list(patch.FORMATS)
    assert {"code": "patch"} in statement["rest"][0]["resource"][0]["interaction"]


@pytest.mark.parametrize("body", [b"[]", b"", b"{}", b'{"resourceType":"Observation"}', b"[", b'"x"', b'{"resourceType":"Parameters"}{'])
def test_body_in_fhir_format_that_is_no_patch_is_refused(served: Served, body: bytes) -> None:
    put(served, observation("formats"))
    answer = served.request(served.token(), "PATCH", "Observation/formats", body=body, headers={"content-type": "application/fhir+json"})
    assert (answer.status, b"Parameters" in answer.body or b"well-formed" in answer.body) == (400, True)


@pytest.mark.parametrize(
    "resource", [None, {"resourceType": "Binary", "contentType": TYPE}, {"resourceType": "Basic", "code": {"text": "x"}}]
)
@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_entry_without_a_patch_is_refused(served: Served, kind: str, resource: Any) -> None:
    put(served, observation("bare"))
    wrong = {"request": {"method": "PATCH", "url": "Observation/bare"}} | ({"resource": resource} if resource else {})
    answer = bundle(served, wrong, kind=kind)
    assert (answer.status if kind == "transaction" else int(answer.json["entry"][0]["response"]["status"])) == 400


def test_references_in_patches_lead_to_other_entries(served: Served) -> None:
    put(served, observation("linked"))
    person = {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": "subject"}]}
    create = {
        "fullUrl": URN, "resource": person, "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={SYSTEM}|subject"}
    }  # fmt: skip
    operations = [op("replace", "/subject/reference", value=URN), op("add", "/focus", value=[{"reference": URN}])]
    for _ in range(2):  # first a new patient, then the one that exists
        answer = bundle(served, entry("Observation/linked", operations), create)
        row, found = (one["resource"] for one in answer.json["entry"])
        assert row["subject"]["reference"] == row["focus"][0]["reference"] == f"Patient/{found['id']}"
    again = {"resource": observation("linked"), "request": {"method": "PUT", "url": "Observation/linked"}}
    assert bundle(served, entry("Observation/linked", operations), again, create).status == 400


def test_generated_narrative_goes_if_what_it_tells_changes(served: Served) -> None:
    def narrative(status: str) -> dict[str, str]:
        return {"status": status, "div": '<div xmlns="http://www.w3.org/1999/xhtml">final</div>'}

    for status, stays in (("generated", False), ("additional", True)):
        put(served, observation("told", text=narrative(status)))
        assert "text" in patched(served, "alone", "Observation/told", op("test", "/status", value="final"))[1]
        assert ("text" in patched(served, "alone", "Observation/told", op("replace", "/status", value="amended"))[1]) is stays
    new = op("add", "/text", value=narrative("generated") | {"div": narrative("")["div"].replace("final", "new")})
    assert "new" in patched(served, "alone", "Observation/told", op("replace", "/status", value="final"), new)[1]["text"]["div"]


def test_labels_stay_and_removing_one_is_refused(served: Served) -> None:
    tag = {"system": SYSTEM, "code": "t"}
    put(served, observation("tagged", meta={"tag": [tag]}))
    assert patched(served, "alone", "Observation/tagged", op("remove", "/meta/tag"))[0] == 422
    assert patched(served, "alone", "Observation/tagged", op("add", "/meta/tag/-", value=tag | {"code": "u"}))[0] == 200
    assert [one["code"] for one in served.get(served.token(), "Observation/tagged").json["meta"]["tag"]] == ["t", "u"]


def test_large_resource_is_parsed_outside_the_transaction(served: Served) -> None:
    put(served, observation("large", note=[{"text": "x" * 50} for _ in range(3000)]))
    change = [op("replace", "/status", value="amended"), op("remove", "/note/0")]
    assert patched(served, "alone", "Observation/large", *change)[0] == 200
    invalid = [op("replace", "/status", value="amended"), op("add", "/note/0", value={"colour": "red"})]
    assert patched(served, "alone", "Observation/large", *invalid)[0] == 422
    put(served, observation("large-2", note=[{"text": "y" * 50} for _ in range(3000)]))
    answer = bundle(served, entry("Observation/large", change), entry("Observation/large-2", change))
    assert [len(one["resource"]["note"]) for one in answer.json["entry"]] == [2998, 2999]


@pytest.mark.parametrize(("scope", "status"), [("u", 200), ("c", 403), ("rs", 403), ("d", 403)])
def test_patch_needs_the_scope_to_update(served: Served, scope: str, status: int) -> None:
    put(served, observation("scoped"))
    token = served.token(scope=f"system/Observation.{scope}")
    assert patched(served, "alone", "Observation/scoped", op("test", "/status", value="final"), token=token)[0] == status


@KINDS
def test_answer_holds_the_resource_only_for_a_scope_to_read(served: Served, kind: str) -> None:
    put(served, observation("unread"))
    change = op("test", "/status", value="final")
    assert patched(served, kind, "Observation/unread", change, token=served.token(scope="system/Observation.u")) == (200, {})
    narrow = served.token(scope="system/Observation.u system/Observation.r?status=amended")
    assert patched(served, kind, "Observation/unread", change, token=narrow) == (200, {})
    assert patched(served, kind, "Observation/unread", op("replace", "/status", value="amended"), token=narrow)[1]["id"] == "unread"


# What a caller who sees only a part of the row can do: results of a report are visible as far as their observations are.


def sees_part_of_a_report(served: Served) -> str:
    """A token of a clinician who sees final observations alone, so the preliminary result of the report is hidden."""
    for name, status in (("res-a", "final"), ("res-b", "preliminary"), ("res-c", "final")):
        put(served, observation(name, status=status))
    results = [{"reference": f"Observation/res-{letter}"} for letter in "abc"]
    put(served, {"resourceType": "DiagnosticReport", "id": "partly", "status": "final", "code": {"text": "x"}, "result": results,
                 "subject": {"reference": "Patient/adult"}})  # fmt: skip
    return served.token("demo-public", "user/DiagnosticReport.cruds user/Observation.rs?status=final user/Patient.rs", "clinician")


@pytest.fixture
def clinician(served: Served) -> str:
    return sees_part_of_a_report(served)


def results(served: Served, token: str) -> list[str]:
    return [one["reference"][-1] for one in served.get(token, "DiagnosticReport/partly").json["result"]]


@KINDS
def test_positions_count_visible_items(served: Served, clinician: str, kind: str) -> None:
    url = "DiagnosticReport/partly"
    assert results(served, clinician) == ["a", "c"]
    hidden = (
        [op("test", "/result/1/reference", value="Observation/res-b")],
        [op("remove", "/result/2")],
        [op("test", "/result/2", value={})],
    )
    outcomes = [patched(served, kind, url, *operations, token=clinician) for operations in hidden]
    assert {status for status, _ in outcomes} == {422} and "res-b" not in str(outcomes)
    assert patched(served, kind, url, op("test", "/result/1/reference", value="Observation/res-c"), token=clinician)[0] == 200
    assert results(served, served.token()) == ["a", "b", "c"]  # untouched: also the order stays
    assert patched(served, kind, url, op("remove", "/result/1"), token=clinician)[0] == 200
    assert results(served, clinician) == ["a"] and sorted(results(served, served.token())) == ["a", "b"]
    assert patched(served, kind, url, op("remove", "/result"), token=clinician)[0] == 200
    assert results(served, served.token()) == ["b"]
    copied = patched(served, kind, url, op("copy", "/result/-", **{"from": "/result/0"}), token=clinician)
    assert copied[0] == 422
    assert "result" not in served.get(clinician, url).json


def test_hidden_row_is_answered_like_an_absent_one(served: Served, clinician: str) -> None:
    token = served.token("demo-public", "user/Observation.cruds?status=final", "clinician")
    change = op("add", "/valueString", value="x")
    answers = [patched(served, "alone", f"Observation/{id}", change, token=token) for id in ("res-b", "never")]
    assert answers[0][0] == answers[1][0] == 404 and str(answers[0]).replace("res-b", "never") == str(answers[1])
    by_criteria = [patched(served, "alone", f"Observation?identifier={SYSTEM}|{id}", change, token=token) for id in ("res-b", "never")]
    assert by_criteria[0] == by_criteria[1] and by_criteria[0][0] == 404
    assert patched(served, "alone", "Observation/res-a", change, token=token)[0] == 200  # the control


def parameters(type: str, path: str, **more: Any) -> dict[str, Any]:
    parts = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}]
    parts += [
        {"name": "value", name: given} if name.startswith("value") else {"name": name, "valueInteger": given}
        for name, given in more.items()
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


@KINDS
def test_fhirpath_patch_follows_the_same_rules(served: Served, clinician: str, kind: str) -> None:
    def sent(body: dict[str, Any], token: str = clinician, url: str = "DiagnosticReport/partly") -> tuple[int, Any]:
        if kind == "alone":
            answer = served.request(token, "PATCH", url, body=body)
            return answer.status, answer.json
        answer = bundle(served, {"resource": body, "request": {"method": "PATCH", "url": url}}, kind=kind, token=token)
        only = answer.json["entry"][0] if answer.status == 200 else {"response": {"status": answer.status, "outcome": answer.json}}
        return int(only["response"]["status"]), only.get("resource", only["response"].get("outcome"))

    by_reference = "DiagnosticReport.result.where(reference = 'Observation/res-{}')"
    assert sent(parameters("delete", by_reference.format("b")))[0] == 200  # hidden, so nothing is there
    assert sent(parameters("replace", by_reference.format("b") + ".display", valueString="x"))[0] == 422
    assert sent(parameters("move", "DiagnosticReport.result", source=2, destination=0))[0] == 422
    assert results(served, served.token()) == ["a", "b", "c"]
    assert sent(parameters("delete", "DiagnosticReport.result[1]"))[0] == 200
    assert (results(served, clinician), sorted(results(served, served.token()))) == (["a"], ["a", "b"])
    assert sent(parameters("replace", "DiagnosticReport.status", valueCode="no-code"))[0] == 422
    assert sent(parameters("replace", "DiagnosticReport.status", valueCode="amended"))[1]["status"] == "amended"
    assert sent(parameters("delete", "DiagnosticReport.result.resolve()"))[0] == 400
    assert sent({"resourceType": "Parameters", "parameter": [{"nome": "operation"}]})[0] == 400
    assert sent(parameters("delete", "DiagnosticReport.text"), url="DiagnosticReport?_id=partly")[0] == 200
    assert sent(parameters("delete", "DiagnosticReport.text"), url="DiagnosticReport/nobody")[0] == 404


def test_references_in_fhirpath_patches_lead_to_other_entries(served: Served) -> None:
    put(served, observation("linked-too"))
    create = {"fullUrl": URN, "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
    body = parameters("replace", "Observation.subject", valueReference={"reference": URN})
    answer = bundle(served, {"resource": body, "request": {"method": "PATCH", "url": "Observation/linked-too"}}, create)
    row, found = (one["resource"] for one in answer.json["entry"])
    assert row["subject"]["reference"] == f"Patient/{found['id']}"
