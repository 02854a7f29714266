"""Bulk Data import over HTTP: each line is written as a create or an update of the client would be.  On every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.interactions import bulk_import_job
from fhir_server.packages.loading import Packages
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.store.logs import AUDIT_LOG
from tests.bulk_data.import_files import ASYNC, HOST, Files, ndjson, parameters, reaching, refusals, started
from tests.bulk_data.polling import finished
from tests.profiles.cases import CASES
from tests.profiles.profile_set import package
from tests.seeded import seeded
from tests.served import NOON, Served, micros, store_url

CASE = CASES["pattern"]
KEYS: dict[str, Any] = {"keys": []}
PATIENT = {"resourceType": "Patient", "id": "imported", "name": [{"family": "Imported"}], "birthDate": "1980-05-05"}


def observation(number: int, **others: Any) -> dict[str, Any]:
    value = {"resourceType": "Observation", "status": "final", "code": {"text": f"result {number}"}}
    return {**value, "subject": {"reference": "Patient/imported"}, **others}


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path, files: Files) -> Iterator[Served]:
    served = seeded(store_url(request.param, tmp_path), max_resource_bytes=20_000)
    for client in ("limited", "other"):
        served.run(clients.save(served.parts.store, Client(client, client, "backend", "private_key_jwt", "system/*.cruds", jwks=KEYS)))
    yield reaching(served, files)
    served.close()


def test_resources_of_files_are_stored_in_the_order_of_their_references(server: Served, files: Files) -> None:
    files.files = {"o": ndjson(observation(1, id="first"), observation(2)), "p": ndjson(PATIENT)}
    token = server.token()
    location = started(server, token, ("Observation", f"{HOST}/o"), ("Patient", f"{HOST}/p"))
    result = finished(server, token, location)
    counts = {output["type"]: output["count"] for output in result["output"]}
    assert (counts, result["error"]) == ({"Patient": 1, "Observation": 2}, [])
    assert result["request"] == f"{server.settings.base}/$import" and result["transactionTime"] == "2026-11-21T17:00:00.000Z"
    assert len(server.all_ids(token, "Observation?patient=imported")) == 2
    assert server.get(token, "Observation/first").json["code"]["text"] == "result 1"


def test_result_has_each_file_in_the_order_of_the_request_with_its_counts(server: Served, files: Files) -> None:
    files.files = {"o": ndjson(observation(1), b"{"), "p": ndjson(PATIENT), "empty": b""}
    token = server.token()
    inputs = [("Observation", f"{HOST}/o"), ("Patient", f"{HOST}/p"), ("Condition", f"{HOST}/empty")]
    result = finished(server, token, started(server, token, *inputs))
    assert [(one["type"], one["inputUrl"], one["count"]) for one in result["output"]] == [
        (*asked, count) for asked, count in zip(inputs, (1, 1, 0), strict=True)
    ]
    assert [(one["type"], one["inputUrl"], one["count"]) for one in result["error"]] == [("OperationOutcome", f"{HOST}/o", 1)]
    assert result["outcome"] == result["error"] and "Line 2" in refusals(server, token, result)[0]["issue"][0]["diagnostics"]
    assert set(result) == {"transactionTime", "request", "requiresAccessToken", "output", "error", "outcome"}


def test_a_line_meets_the_profiles_that_it_claims(server: Served, files: Files) -> None:
    parts = server.parts
    server.run(Packages(parts.store, parts.labeler, server.settings.base, parts.clock).add(package(CASE.profile)))
    bad = CASE.resource(CASE.defects[0].changes)
    inside = {"resourceType": "List", "status": "current", "mode": "working", "contained": [bad | {"id": "inner"}]}
    inside |= {"entry": [{"item": {"reference": "#inner"}}]}
    files.files = {"o": ndjson(CASE.resource(), bad), "l": ndjson(inside)}
    token = server.token()
    result = finished(server, token, started(server, token, ("Observation", f"{HOST}/o"), ("List", f"{HOST}/l")))
    assert [one["count"] for one in result["output"]] == [1, 0]
    places = [outcome["issue"][0]["expression"] for outcome in refusals(server, token, result)]
    assert places == [["Observation.code"], ["List.contained[0].code"]]


def test_digits_stay_as_they_were_sent(server: Served, files: Files) -> None:
    line = b'{"resourceType":"Observation","id":"exact","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.50}}'
    files.files = {"o": ndjson(line)}
    token = server.token()
    finished(server, token, started(server, token, ("Observation", f"{HOST}/o")))
    assert b'"value":1.50' in server.get(token, "Observation/exact").body


def test_a_file_does_not_make_a_subscription(server: Served, files: Files) -> None:
    channel = {"type": "rest-hook", "endpoint": "https://app.example/hook"}
    row = {"resourceType": "Subscription", "status": "requested", "reason": "x", "criteria": "Observation", "channel": channel}
    files.files = {"s": ndjson(row, {**row, "id": "named"})}
    token = server.token()
    result = finished(server, token, started(server, token, ("Subscription", f"{HOST}/s")))
    assert [output["count"] for output in result["output"]] == [0]
    assert [outcome["issue"][0]["code"] for outcome in refusals(server, token, result)] == ["invalid", "invalid"]


def test_each_refused_line_is_named_with_its_reason_and_the_others_are_stored(server: Served, files: Files) -> None:
    lines: list[Any] = [
        PATIENT,
        {**PATIENT, "id": "two", "gender": "unknowable"},
        b"{not json",
        {"resourceType": "Basic", "id": "three", "code": {"text": "x"}},
        {**PATIENT, "id": "four", "managingOrganization": {"reference": "Organization/nowhere"}},
        {**PATIENT, "id": "five", "link": [{"other": {"reference": "Patient?family=x"}, "type": "refer"}]},
        {**PATIENT, "id": "long", "name": [{"text": "x" * 30_000}]},
        b"",
        {**PATIENT, "id": "last"},
    ]
    files.files = {"p": ndjson(*lines)[:-1]}  # the last line has no end
    token = server.token()
    result = finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))
    assert [output["count"] for output in result["output"]] == [2]
    texts = [outcome["issue"][0]["diagnostics"] for outcome in refusals(server, token, result)]
    assert [text.partition(":")[0] for text in texts] == [f"Line {number}" for number in (2, 3, 4, 5, 6, 7)]
    assert server.get(token, "Patient/last").status == 200 and server.get(token, "Patient/four").status == 404


def test_large_files_come_in_parts_that_are_each_fetched_once(server: Served, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_import_job, "_PART", 2000)
    files.files = {"p": ndjson(PATIENT), "o": ndjson(*[observation(number) for number in range(60)])}
    token = server.token()
    location = started(server, token, ("Patient", f"{HOST}/p"), ("Observation", f"{HOST}/o"))
    result = finished(server, token, location)
    assert [output["count"] for output in result["output"]] == [1, 60]
    texts = [row["resource"]["code"]["text"] for row in server.get(token, "Observation?patient=imported&_count=100").json["entry"]]
    assert sorted(texts) == sorted(f"result {number}" for number in range(60))
    assert len(files.asked) > 3 and files.sent < 2 * sum(map(len, files.files.values()))


@pytest.mark.parametrize("validators", [True, False])
def test_a_server_that_gives_whole_files_only_is_read_from_the_start(
    server: Served, files: Files, monkeypatch: pytest.MonkeyPatch, validators: bool
) -> None:
    monkeypatch.setattr(bulk_import_job, "_PART", 2000)
    files.ranges, files.validators = False, validators
    files.files = {"o": ndjson(*[observation(number, subject=None) for number in range(40)]).replace(b', "subject": null', b"")}
    token = server.token()
    result = finished(server, token, started(server, token, ("Observation", f"{HOST}/o")))
    assert [output["count"] for output in result["output"]] == [40] and result["error"] == []


def test_a_file_that_changes_meanwhile_ends_with_an_error(server: Served, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_import_job, "_LINES", 2)
    files.files = {"p": ndjson(*[{**PATIENT, "id": f"p{number}"} for number in range(5)])}
    token = server.token()
    location = started(server, token, ("Patient", f"{HOST}/p"))
    assert server.get(token, location).headers["x-progress"] == "2 lines"
    files.files["p"] = ndjson(*[{**PATIENT, "id": f"q{number}"} for number in range(5)])
    result = finished(server, token, location)
    (outcome,) = refusals(server, token, result)
    assert "changed" in outcome["issue"][0]["diagnostics"] and [output["count"] for output in result["output"]] == [2]
    assert server.get(token, "Patient/q3").status == 404


def test_a_host_that_is_down_for_a_moment_is_asked_again(server: Served, files: Files) -> None:
    files.files, files.down = {"p": ndjson(PATIENT)}, 2
    token = server.token()
    result = finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))
    assert result["error"] == [] and [output["count"] for output in result["output"]] == [1]


def test_a_file_that_cannot_be_fetched_is_an_error_of_its_own(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT)}
    token = server.token()
    result = finished(server, token, started(server, token, ("Patient", f"{HOST}/none"), ("Patient", f"{HOST}/p")))
    assert [output["count"] for output in result["output"]] == [0, 1]
    assert "cannot be fetched" in refusals(server, token, result)[0]["issue"][0]["diagnostics"]


def test_addresses_inside_are_not_reached(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT)}
    token = server.token()
    result = finished(server, token, started(server, token, ("Patient", "https://inside.example/p")))
    assert files.asked == [] and result["error"][0]["count"] == 1
    finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))  # the control
    assert [headers["host"] for headers in files.asked] == ["files.example"]
    for url in ("http://files.example/p", "https://user:secret@files.example/p", "file:///etc/passwd", "https://files.example/p#x", ""):
        assert server.request(token, "POST", "$import", body=parameters(("Patient", url)), headers=ASYNC).status == 400


def test_an_import_again_and_a_part_again_add_no_version(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT), "o": ndjson(observation(1), observation(2, id="two"))}
    inputs = (("Patient", f"{HOST}/p"), ("Observation", f"{HOST}/o"))
    token = server.token()
    location = started(server, token, *inputs)
    id = location.rpartition("/")[2]
    values, now = server.parts.store.key_values, server.parts.clock()
    before = server.run(values.get("import", id, now)) or b""
    finished(server, token, location)
    server.run(values.put("import", id, before, now + bulk_import_job.LIFE))  # as if the process had died before it recorded the end
    result = finished(server, token, location)
    assert [output["count"] for output in result["output"]] == [1, 2]
    assert len(server.all_ids(token, "Observation?patient=imported")) == 2
    finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))
    assert server.get(token, "Patient/imported").json["meta"]["versionId"] == "1"
    files.files["p"] = ndjson({**PATIENT, "active": True})
    finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))
    assert server.get(token, "Patient/imported").json["meta"]["versionId"] == "2"


def test_only_systems_that_may_write_import(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT)}
    body = parameters(("Patient", f"{HOST}/p"))
    readers = (server.token(scope="system/*.rs"), server.app_token("parent-a", "teen"), server.app_token("adult", "adult"))
    for token in readers:
        assert server.request(token, "POST", "$import", body=body, headers=ASYNC).status == 403
    assert server.request(None, "POST", "$import", body=body, headers=ASYNC).status == 401
    of_other_type = server.token(scope="system/Observation.cruds")
    assert server.request(of_other_type, "POST", "$import", body=body, headers=ASYNC).status == 403
    assert files.asked == []


def test_lines_are_judged_by_the_rights_of_the_client(server: Served, files: Files) -> None:
    limited = server.token("limited", "system/*.cruds")
    teen = {"resourceType": "Patient", "id": "teen", "active": False}
    files.files = {"p": ndjson(teen)}
    result = finished(server, limited, started(server, limited, ("Patient", f"{HOST}/p")))
    assert refusals(server, limited, result)[0]["issue"][0]["code"] == "forbidden"
    direct = server.request(limited, "PUT", "Patient/teen", body=teen)
    assert direct.status == 403 and refusals(server, limited, result)[0]["issue"][0]["diagnostics"].endswith(
        direct.json["issue"][0]["diagnostics"]
    )


def test_revoked_clients_import_no_further(server: Served, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_import_job, "_LINES", 2)
    files.files = {"p": ndjson(*[{**PATIENT, "id": f"p{number}"} for number in range(4)])}
    token = server.token()
    location = started(server, token, ("Patient", f"{HOST}/p"))
    assert server.get(token, location).status == 202
    server.at(micros(NOON) + 23 * 3600 * 1_000_000)  # the token has expired
    assert server.get(token, location).status == 401
    again = server.token()
    assert server.get(again, "Patient/p3").status == 404
    assert [output["count"] for output in finished(server, again, location)["output"]] == [4]


def test_import_belongs_to_its_client_and_ends_when_it_is_deleted(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT, b"{")}
    token, other = server.token(), server.token("other", "system/*.cruds")
    location = started(server, token, ("Patient", f"{HOST}/p"))
    result = finished(server, token, location)
    url = result["error"][0]["url"]
    for path in (location, url):
        assert server.get(other, path, accept="*/*").status == 404
    assert server.get(token, url.replace("errors-0", "errors-1"), accept="*/*").status == 404
    assert server.request(other, "DELETE", location).status == 404
    assert server.request(token, "DELETE", location).status == 202
    assert server.get(token, location).status == server.get(token, url, accept="*/*").status == 404
    kinds = ("import", "import-slot", "import-turn", "import-errors")
    assert [len(server.run(server.parts.store.key_values.list_all(kind, server.parts.clock()))) for kind in kinds] == [0, 0, 0, 0]
    assert server.get(token, "Patient/imported").status == 200  # what is stored stays


def test_number_of_imports_is_limited(server: Served) -> None:
    token = server.token()
    for _ in range(bulk_import_job.MAX_IMPORTS):
        started(server, token, ("Patient", f"{HOST}/p"))
    assert server.request(token, "POST", "$import", body=parameters(("Patient", f"{HOST}/p")), headers=ASYNC).status == 429


def test_a_line_without_end_is_refused_and_not_held_in_memory(server: Served, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.files = {"p": b'{"resourceType":"Patient","name":"' + b"x" * 90_000 + b'"}\n' + ndjson({**PATIENT, "id": "after"})}
    token = server.token()
    result = finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))
    (outcome,) = refusals(server, token, result)
    assert "larger than 20000 bytes" in outcome["issue"][0]["diagnostics"] and [one["count"] for one in result["output"]] == [1]


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Parameters"},
        {"resourceType": "Patient"},
        parameters(),
        parameters(("Nonsense", f"{HOST}/p")),
        parameters(("Patient", f"{HOST}/p"), mode={"valueCode": "InitialLoad"}),
        parameters(("Patient", f"{HOST}/p"), inputFormat={"valueCode": "text/csv"}),
        parameters(("Patient", f"{HOST}/p"), storageDetail={"part": [{"name": "type", "valueCode": "aws-s3"}]}),
        {"resourceType": "Parameters", "parameter": [{"name": "input", "part": [{"name": "type", "valueCode": "Patient"}]}]},
        {"resourceType": "Parameters", "parameter": [{"name": "input"}]},
        {"resourceType": "Parameters", "parameter": [1]},
    ],
)
def test_malformed_kick_offs_are_refused(server: Served, body: Any) -> None:
    answer = server.request(server.token(), "POST", "$import", body=body, headers=ASYNC)
    assert answer.status == 400 and answer.json["resourceType"] == "OperationOutcome"


def test_parameters_of_the_draft_are_taken_and_the_preference_is_required(server: Served) -> None:
    others = {
        "inputFormat": {"valueCode": "application/fhir+ndjson"},
        "inputSource": {"valueUri": "https://source.example"},
        "storageDetail": {"part": [{"name": "type", "valueCode": "https"}]},
    }
    body = parameters(("Patient", f"{HOST}/p"), **others)
    assert server.request(server.token(), "POST", "$import", body=body, headers=ASYNC).status == 202
    assert server.request(server.token(), "POST", "$import", body=body).status == 400


def test_audit_log_has_each_line_with_its_status(server: Served, files: Files) -> None:
    files.files = {"p": ndjson(PATIENT, {**PATIENT, "id": "bad", "gender": "unknowable"}, {**PATIENT, "id": "x", "link": 1})}
    token = server.token()
    finished(server, token, started(server, token, ("Patient", f"{HOST}/p")))

    async def newest() -> bytes:
        await server.parts.auditor.flush()
        async with server.parts.store.snapshot() as snapshot:
            return (await snapshot.log_lines_unfiltered(AUDIT_LOG, None, before=2**62, limit=1))[0][1]

    line = server.run(newest())
    assert b'{"reference":"Patient/imported"}' in line and line.count(b'"valueString":"400"') == 2 and b'"valueString":"201"' in line
