"""PATCH with XML Patch: alone, conditionally, in a batch and in a transaction, on each store; what is hidden stays."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from fhir_server.fhir_xml import to_xml
from tests.filled import served_with
from tests.interactions.test_patch import KINDS, SYSTEM, URN, bundle, observation, put, results, sees_part_of_a_report
from tests.served import Served

TYPE = "application/xml-patch+xml"


served = served_with()


def diff(*operations: str) -> bytes:
    return f'<diff xmlns:f="http://hl7.org/fhir">{"".join(operations)}</diff>'.encode()


def entry(url: str, *operations: str) -> dict[str, Any]:
    binary = {"resourceType": "Binary", "contentType": TYPE, "data": b64encode(diff(*operations)).decode()}
    return {"resource": binary, "request": {"method": "PATCH", "url": url}}


def patched(served: Served, kind: str, url: str, *operations: str, token: str = "") -> tuple[int, Any]:
    """Status and body of a patch: alone, or as the entry of a Bundle."""
    token = token or served.token()
    if kind == "alone":
        answer = served.request(token, "PATCH", url, body=diff(*operations), headers={"content-type": TYPE})
        return answer.status, answer.json if answer.body else {}
    answer = bundle(served, entry(url, *operations), kind=kind, token=token)
    if answer.status >= 400:
        return answer.status, answer.json
    only = answer.json["entry"][0]
    return int(only["response"]["status"]), only.get("resource", only["response"].get("outcome", {}))


@KINDS
def test_patch_changes_what_it_selects_and_keeps_all_digits(served: Served, kind: str) -> None:
    put(served, observation(f"x-{kind}", note=[{"text": "a"}]))
    url = f"Observation/x-{kind}"
    value = '<f:valueQuantity><f:value value="1.50"/></f:valueQuantity>'
    operations = ('<replace sel="f:Observation/f:status/@value">amended</replace>', f'<add sel="f:Observation">{value}</add>')
    status, row = patched(served, kind, url, *operations)
    assert (status, row["status"], row["meta"]["versionId"], row["note"]) == (200, "amended", "2", [{"text": "a"}])
    assert b'"value":1.50' in served.get(served.token(), url).body
    assert patched(served, kind, f"Observation?identifier={SYSTEM}|x-{kind}", '<remove sel="f:Observation/f:note"/>')[0] == 200
    assert patched(served, kind, f"Observation?identifier={SYSTEM}|nobody", '<remove sel="f:Observation/f:note"/>')[0] == 404


@KINDS
def test_patch_that_cannot_be_done_changes_nothing(served: Served, kind: str) -> None:
    put(served, observation(f"y-{kind}"))
    url = f"Observation/y-{kind}"
    before = served.get(served.token(), url).body
    for operation in (
        '<remove sel="f:Observation/f:note"/>', '<remove sel="f:Observation/f:status"/>', '<remove sel="f:Observation"/>',
        '<replace sel="f:Observation/f:status/@value">no-code</replace>', '<replace sel="f:Observation/f:id/@value">other</replace>',
        '<add sel="f:Observation"><f:colour value="red"/></add>', '<replace sel="f:Observation"><f:Patient/></replace>',
        '<replace sel="f:Observation/f:subject/f:reference/@value">Patient/nobody</replace>',
    ):  # fmt: skip
        status, outcome = patched(served, kind, url, operation)
        assert (status, outcome["resourceType"]) == (422, "OperationOutcome"), operation
    assert patched(served, kind, url, "<spam/>")[0] == 400
    assert patched(served, kind, url, '<remove sel="//x"/>')[0] == 400
    assert served.get(served.token(), url).body == before


def test_references_lead_to_other_entries(served: Served) -> None:
    put(served, observation("linked-x"))
    create = {"fullUrl": URN, "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
    operations = (
        f'<replace sel="f:Observation/f:subject/f:reference/@value">{URN}</replace>',
        f'<add sel="f:Observation"><f:focus><f:reference value="{URN}"/></f:focus></add>',
    )
    row, found = (one["resource"] for one in bundle(served, entry("Observation/linked-x", *operations), create).json["entry"])
    assert row["subject"]["reference"] == row["focus"][0]["reference"] == f"Patient/{found['id']}"


@KINDS
def test_large_rows_are_patched_outside_the_transaction(served: Served, kind: str) -> None:
    put(served, observation(f"big-{kind}", note=[{"text": "y" * 50} for _ in range(3000)]))
    url = f"Observation/big-{kind}"
    status, row = patched(served, kind, url, '<remove sel="f:Observation/f:note[2]"/>')
    assert (status, len(row["note"])) == (200, 2999)
    assert patched(served, kind, url, '<remove sel="f:Observation/f:note[3000]"/>')[0] == 422


@pytest.fixture
def clinician(served: Served) -> str:
    return sees_part_of_a_report(served)


@KINDS
def test_what_is_hidden_cannot_be_selected_tested_or_removed(served: Served, clinician: str, kind: str) -> None:
    url, result = "DiagnosticReport/partly", "f:DiagnosticReport/f:result"
    hidden = (
        f"<remove sel=\"{result}[f:reference/@value='Observation/res-b']\"/>", f'<remove sel="{result}[3]"/>',
        f'<add sel="{result}[f:reference/@value=\'Observation/res-b\']" type="@id">x</add>',
    )  # fmt: skip
    outcomes = [patched(served, kind, url, operation, token=clinician) for operation in hidden]
    assert {status for status, _ in outcomes} == {422} and "res-b" not in str(outcomes)
    untouched = '<add sel="f:DiagnosticReport"><f:conclusion value="new"/></add>'
    assert patched(served, kind, url, untouched, token=clinician)[0] == 200
    assert results(served, served.token()) == ["a", "b", "c"]  # also the order stays
    assert patched(served, kind, url, f'<remove sel="{result}[2]"/>', token=clinician)[0] == 200
    assert results(served, clinician) == ["a"] and sorted(results(served, served.token())) == ["a", "b"]


def test_hidden_row_is_answered_like_an_absent_one(served: Served, clinician: str) -> None:
    token = served.token("demo-public", "user/Observation.cruds?status=final", "clinician")
    change = '<add sel="f:Observation"><f:valueString value="x"/></add>'
    answers = [patched(served, "alone", f"Observation/{id}", change, token=token) for id in ("res-b", "never")]
    assert answers[0][0] == answers[1][0] == 404 and str(answers[0]).replace("res-b", "never") == str(answers[1])
    assert patched(served, "alone", "Observation/res-a", change, token=token)[0] == 200  # the control


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_fhirpath_patch_in_xml_may_be_the_binary_of_an_entry(served: Served, kind: str) -> None:
    put(served, observation(f"path-{kind}"))
    parts = [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Observation.status"},
             {"name": "value", "valueCode": "amended"}]  # fmt: skip
    text = to_xml(json.dumps({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}).encode())
    binary = {"resourceType": "Binary", "contentType": "application/fhir+xml", "data": b64encode(text).decode()}
    sent = {"resource": binary, "request": {"method": "PATCH", "url": f"Observation/path-{kind}"}}
    assert bundle(served, sent, kind=kind).json["entry"][0]["resource"]["status"] == "amended"


def test_large_conversions_and_patches_are_done_in_another_process(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[str] = []
    parser = served.parts.service.parser
    run = parser._run

    async def counted(task: Any, texts: list[bytes]) -> Any:
        jobs.append(task.job)
        return await run(task, texts)

    monkeypatch.setattr(parser, "_run", counted)
    large = to_xml(json.dumps(observation("elsewhere", note=[{"text": "y" * 50}] * 2000)).encode())
    headers = {"content-type": "application/fhir+xml", "accept": "application/fhir+xml"}
    assert served.request(served.token(), "PUT", "Observation/elsewhere", body=large, headers=headers).status in (200, 201)
    patched(served, "alone", "Observation/elsewhere", '<remove sel="f:Observation/f:note[1]"/>')
    assert set(jobs) == {"from_xml", "draft", "to_xml", "patch"}
    jobs.clear()
    put(served, observation("here"))
    assert served.request(served.token(), "GET", "Observation/here", headers=headers).status == 200
    assert patched(served, "alone", "Observation/here", '<remove sel="f:Observation/f:identifier"/>')[0] == 200
    assert jobs == []
