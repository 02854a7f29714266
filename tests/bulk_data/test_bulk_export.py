"""Bulk Data export over HTTP.  An export contains exactly the resources that its requester could find by search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import bulk_export_job, owned_jobs
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from tests.bulk_data.polling import finished
from tests.seeded import seeded
from tests.served import NOON, Answer, Served, micros

ASYNC = {"prefer": "respond-async", "accept": "application/fhir+json"}
GROUP = {
    "resourceType": "Group",
    "id": "panel",
    "type": "person",
    "actual": True,
    "member": [
        {"entity": {"reference": "Patient/adult"}},
        {"entity": {"reference": "Patient/teen"}},
        {"entity": {"reference": "Patient/child"}, "inactive": True},
    ],
}
KEYS: dict[str, Any] = {"keys": []}


@pytest.fixture
def server() -> Iterator[Served]:
    server = seeded()
    for client in ("limited", "other"):
        server.run(
            clients.save(
                server.parts.store, Client(client, client, "backend", "private_key_jwt", "system/*.rs", jwks=KEYS, clearance=("MIXED",))
            )
        )
    assert server.request(server.token(), "PUT", "Group/panel", body=GROUP).status == 201
    yield server
    server.close()


@pytest.fixture
def feed(server: Served) -> str:
    """Return the token of a backend with access to all data."""
    return server.token()


@pytest.fixture
def limited(server: Served) -> str:
    """Return the token of a backend without clearance for any sensitive category."""
    return server.token("limited", "system/*.rs")


def kicked(server: Served, token: str, path: str, **headers: str) -> str:
    answer = server.request(token, "GET", path, headers={**ASYNC, **headers})
    assert answer.status == 202, answer.body
    return answer.headers["content-location"]


def rows(server: Served, token: str, manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Download the files of a manifest, and return their resources by type."""
    found = {}
    for output in manifest["output"]:
        answer = server.get(token, output["url"], accept="application/fhir+ndjson")
        assert answer.status == 200 and answer.headers["content-type"].startswith("application/fhir+ndjson")
        found[output["type"]] = [json.loads(line) for line in answer.body.decode().splitlines()]
    return found


def exported(server: Served, token: str, path: str) -> dict[str, list[str]]:
    """Run an export, and return the ids in its files by type."""
    found = rows(server, token, finished(server, token, kicked(server, token, path)))
    return {type: sorted(row["id"] for row in many) for type, many in found.items()}


def test_group_7_8_02_capability_statement_lists_group_export(server: Served) -> None:
    statement = server.get(None, "metadata").json
    group = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Group")
    assert ("export", "group-export") in [(one["name"], one["definition"].rpartition("/")[2]) for one in group["operation"]]
    assert statement["instantiates"] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]


def test_group_7_8_03_kickoff_without_token_returns_401(server: Served) -> None:
    for path in ("Group/panel/$export", "Patient/$export", "$export"):
        assert server.request(None, "GET", path, headers=ASYNC).status == 401


def test_group_7_8_04_kickoff_returns_202_with_absolute_status_url(server: Served, limited: str) -> None:
    assert kicked(server, limited, "Group/panel/$export").startswith(server.settings.base + "/")


def test_group_7_8_05_manifest_has_the_required_members(server: Served, limited: str) -> None:
    location = kicked(server, limited, "Group/panel/$export?_type=Patient")
    answer = server.get(limited, location, accept="application/json")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json" and "expires" in answer.headers
    assert answer.json["request"] == f"{server.settings.base}/Group/panel/$export?_type=Patient"
    assert answer.json["requiresAccessToken"] is True and answer.json["error"] == []
    assert answer.json["transactionTime"] == "2026-11-21T17:00:00.000Z"


def test_group_7_8_06_07_files_have_absolute_urls_and_one_resource_type_as_ndjson(server: Served, limited: str) -> None:
    manifest = finished(server, limited, kicked(server, limited, "Group/panel/$export"))
    assert all(output["url"].startswith(server.settings.base + "/") for output in manifest["output"])
    found = rows(server, limited, manifest)
    assert {"Patient", "Observation", "Appointment", "Practitioner"} <= set(found)
    assert all(row["resourceType"] == type for type, many in found.items() for row in many)


def test_group_7_8_07_file_request_without_token_returns_401_and_xml_406(server: Served, limited: str) -> None:
    manifest = finished(server, limited, kicked(server, limited, "Group/panel/$export?_type=Patient"))
    assert server.get(None, manifest["output"][0]["url"], accept="application/fhir+ndjson").status == 401
    assert server.get(limited, manifest["output"][0]["url"], accept="application/fhir+xml").status == 406


def test_group_7_8_08_group_export_covers_active_members_as_search_does(server: Served, limited: str) -> None:
    found = exported(server, limited, "Group/panel/$export?_type=Patient,Observation,MedicationStatement,Appointment")
    assert found["Patient"] == ["adult", "teen"]
    for type in ("Observation", "MedicationStatement", "Appointment"):
        searched = [id for one in ("adult", "teen") for id in server.all_ids(limited, f"{type}?patient={one}")]
        assert found[type] == sorted(searched) != []


def test_group_7_8_09_deleted_export_returns_404(server: Served, limited: str) -> None:
    location = kicked(server, limited, "Group/panel/$export?_type=Patient")
    url = finished(server, limited, location)["output"][0]["url"]
    assert server.request(limited, "DELETE", location).status == 202
    gone = server.get(limited, location)
    assert gone.status == 404 and gone.json["resourceType"] == "OperationOutcome"
    assert server.get(limited, url, accept="application/fhir+ndjson").status == 404
    assert server.request(limited, "DELETE", location).status == 404


@pytest.mark.parametrize("format", ["application/fhir+ndjson", "application/ndjson", "ndjson"])
def test_group_7_8_10_output_format_accepts_three_ndjson_names(server: Served, limited: str, format: str) -> None:
    kicked(server, limited, f"Group/panel/$export?_outputFormat={format.replace('+', '%2B')}")


def test_group_7_8_10_since_omits_unchanged_resources(server: Served) -> None:
    server.at("2026-11-22T12:00:00-05:00")
    feed, limited = server.token(), server.token("limited", "system/*.rs")
    patient = server.get(feed, "Patient/teen").json
    assert server.request(feed, "PUT", "Patient/teen", body={**patient, "active": False}).status == 200
    assert exported(server, limited, "Group/panel/$export?_type=Patient&_since=2026-11-22T00:00:00Z") == {"Patient": ["teen"]}


def test_full_access_export_matches_search_results(server: Served, feed: str) -> None:
    found = exported(server, feed, "$export")
    for type in ("Patient", "Observation", "Consent", "Organization"):
        assert found[type] == sorted(server.all_ids(feed, f"{type}?_count=100"))
    assert set(exported(server, feed, "Patient/$export")) == set(found)


def test_limited_backend_exports_only_searchable_resources(server: Served, feed: str, limited: str) -> None:
    mine, all = exported(server, limited, "$export"), exported(server, feed, "$export")
    assert set(mine["Observation"]) < set(all["Observation"])
    assert mine["Observation"] == sorted(server.all_ids(limited, "Observation?_count=100"))


def test_types_outside_scope_return_403_if_named_else_are_omitted(server: Served) -> None:
    token = server.token("limited", "system/Patient.rs system/Observation.r system/Group.r")
    assert set(exported(server, token, "Group/panel/$export")) == {"Patient", "Observation", "Group"}
    assert server.request(token, "GET", "$export?_type=Patient,Condition", headers=ASYNC).status == 403
    assert server.request(token, "GET", "$export?_typeFilter=Observation?status=final", headers=ASYNC).status == 403


def test_person_exports_only_the_record_in_context(server: Served) -> None:
    parent = server.app_token("parent-a", "teen")
    found = exported(server, parent, "Patient/$export?_type=Patient,Observation")
    assert found == {"Patient": ["teen"], "Observation": sorted(server.all_ids(parent, "Observation?_count=100"))}
    assert len(found["Observation"]) < len(server.all_ids(server.token(), "Observation?patient=teen&_count=100"))


def test_export_of_hidden_group_returns_same_404_as_unknown_group(server: Served) -> None:
    parent = server.app_token("parent-a", "teen")
    hidden, never = (server.request(parent, "GET", f"Group/{id}/$export", headers=ASYNC) for id in ("panel", "never"))
    assert hidden.status == never.status == 404 and hidden.body.replace(b"panel", b"never") == never.body


def test_export_returns_404_to_other_client_person_or_record(server: Served, feed: str, limited: str) -> None:
    location = kicked(server, limited, "Group/panel/$export?_type=Patient")
    file = finished(server, limited, location)["output"][0]["url"]
    for other in (feed, server.token("other", "system/*.rs"), server.app_token("parent-a", "teen")):
        assert server.get(other, location).status == 404
        assert server.request(other, "DELETE", location).status == 404
        assert server.get(other, file, accept="application/fhir+ndjson").status == 404
    again = server.token("limited", "system/*.rs")
    assert server.get(again, file, accept="application/fhir+ndjson").status == 200


def test_export_files_omit_resources_revoked_after_kickoff(server: Served) -> None:
    proxy = server.app_token("proxy-full", "adult")
    location = kicked(server, proxy, "Patient/$export?_type=Observation")
    manifest = finished(server, proxy, location)
    before = rows(server, proxy, manifest)["Observation"]
    feed = server.token()
    for row in before[1:]:
        whole = server.get(feed, f"Observation/{row['id']}").json
        assert server.request(feed, "PUT", f"Observation/{row['id']}", body={**whole, "status": "entered-in-error"}).status == 200
    assert [row["id"] for row in rows(server, proxy, manifest)["Observation"]] == [before[0]["id"]]
    whole = server.get(feed, f"Observation/{before[0]['id']}").json
    assert server.request(feed, "PUT", f"Observation/{before[0]['id']}", body={**whole, "status": "entered-in-error"}).status == 200
    assert server.get(proxy, manifest["output"][0]["url"], accept="application/fhir+ndjson").status == 404
    assert finished(server, proxy, location)["output"] == []


def test_revoking_proxy_consent_ends_export_access(server: Served) -> None:
    proxy, feed = server.app_token("proxy-full", "adult"), server.token()
    manifest = finished(server, proxy, kicked(server, proxy, "Patient/$export?_type=Observation"))
    assert rows(server, proxy, manifest)["Observation"]
    for consent in server.get(feed, "Consent?patient=adult&status=active&_count=100").json["entry"]:
        body = {**consent["resource"], "status": "inactive"}
        assert server.request(feed, "PUT", f"Consent/{body['id']}", body=body).status == 200
    assert server.get(proxy, manifest["output"][0]["url"], accept="application/fhir+ndjson").status in (401, 403, 404)


def test_export_files_contain_resources_as_of_kickoff(server: Served, feed: str, limited: str) -> None:
    location = kicked(server, limited, "Group/panel/$export?_type=Patient,Observation")
    manifest = finished(server, limited, location)
    first = rows(server, limited, manifest)
    server.at(micros(NOON) + 60_000_000)
    patient = server.get(feed, "Patient/teen").json
    assert server.request(feed, "PUT", "Patient/teen", body={**patient, "active": False}).status == 200
    added = {"resourceType": "Observation", "status": "final", "code": {"text": "late"}, "subject": {"reference": "Patient/teen"}}
    assert server.request(feed, "POST", "Observation", body=added).status == 201
    assert rows(server, limited, manifest) == first
    assert server.get(limited, "Patient/teen").json["active"] is False


def test_busy_store_returns_503_instead_of_omitting_resources(
    server: Served, feed: str, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = finished(server, limited, kicked(server, limited, "Group/panel/$export?_type=Patient"))["output"][0]["url"]
    server.at(micros(NOON) + 60_000_000)
    patient = server.get(feed, "Patient/teen").json
    assert server.request(feed, "PUT", "Patient/teen", body={**patient, "active": False}).status == 200

    async def busy(*_: Any) -> None:
        raise Problem("busy", "The server is busy; try again.")

    with monkeypatch.context() as patch:
        patch.setattr(View, "history", busy)  # the download reads the earlier version through it
        assert server.get(limited, url, accept="application/fhir+ndjson").status == 503
    assert len(server.get(limited, url, accept="application/fhir+ndjson").body.splitlines()) == 2


def test_export_owner_keys_do_not_collide() -> None:
    def owner(client: str, user: str) -> str:
        return owned_jobs.owner(SimpleNamespace(principal=SimpleNamespace(client_id=client, owner=user, username=user, patient=None)))  # type: ignore[arg-type]

    assert owner("a b", "c") != owner("a", "b c") and owner("a", "c") == owner("a", "c")


def test_multi_page_export_contains_each_resource_once(server: Served, limited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exported(server, limited, "$export")
    monkeypatch.setattr(bulk_export_job, "_PAGE", 3)
    monkeypatch.setattr(bulk_export_job, "_PAGES", 2)
    location = kicked(server, limited, "$export?_type=Observation,Patient")
    assert server.get(limited, location).status == 202
    found = rows(server, limited, finished(server, limited, location))
    assert {type: sorted(row["id"] for row in many) for type, many in found.items()} == {
        type: whole[type] for type in ("Observation", "Patient")
    }


def test_export_continues_after_its_last_row_becomes_hidden(server: Served, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = server.app_token("proxy-full", "adult")
    monkeypatch.setattr(bulk_export_job, "_PAGE", 1)
    monkeypatch.setattr(bulk_export_job, "_PAGES", 1)
    seen = server.all_ids(proxy, "Observation?_count=100")
    location = kicked(server, proxy, "Patient/$export?_type=Observation")
    assert server.get(proxy, location).status == 202
    whole = server.get(feed, f"Observation/{seen[0]}").json
    assert server.request(feed, "PUT", f"Observation/{seen[0]}", body={**whole, "status": "entered-in-error"}).status == 200
    found = rows(server, proxy, finished(server, proxy, location))
    assert sorted(row["id"] for row in found["Observation"]) == sorted(seen[1:])


def test_status_request_waits_for_lock_and_resumes_after_expiry(server: Served, limited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_export_job, "_PAGES", 1)
    location = kicked(server, limited, "$export?_type=Observation,Patient")
    job = location.rpartition("/")[2]
    server.run(server.parts.store.key_values.put_if_absent("export-turn", job, b"", micros(NOON) + 60_000_000))
    assert [server.get(limited, location).status for _ in range(3)] == [202, 202, 202]  # another request holds the lock
    server.at(micros(NOON) + 61_000_000)  # the lock has expired
    assert {output["type"] for output in finished(server, limited, location)["output"]} == {"Observation", "Patient"}


def test_export_expires_after_one_day(server: Served, limited: str) -> None:
    location = kicked(server, limited, "$export?_type=Patient")
    finished(server, limited, location)
    server.at(micros(NOON) + 24 * 3600 * 1_000_000)
    assert server.get(server.token("limited", "system/*.rs"), location).status == 404


def test_type_filter_and_patient_parameters_limit_export(server: Served, limited: str) -> None:
    path = "Patient/$export?_type=Observation,Patient&_typeFilter=Observation?category=vital-signs,Observation?code=718-7"
    found = exported(server, limited, path)["Observation"]
    either = [id for where in ("category=vital-signs", "code=718-7") for id in server.all_ids(limited, f"Observation?{where}&_count=100")]
    assert found == sorted(set(either)) and len(found) < len(server.all_ids(limited, "Observation?_count=100"))
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_type", "valueString": "Patient"},
            {"name": "patient", "valueReference": {"reference": "Patient/teen"}},
            {"name": "patient", "valueReference": {"reference": "Patient/child"}},
        ],
    }
    answer = server.request(limited, "POST", "Group/panel/$export", body=parameters, headers=ASYNC)
    found_rows = rows(server, limited, finished(server, limited, answer.headers["content-location"]))
    assert [row["id"] for row in found_rows["Patient"]] == ["teen"]  # the child is not an active member of the group


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("$export", {"accept": "application/fhir+json"}, 400),
        ("$export?_outputFormat=csv", ASYNC, 400),
        ("$export?_type=Nonsense", ASYNC, 400),
        ("$export?_since=yesterday", ASYNC, 400),
        ("$export?_typeFilter=Observation", ASYNC, 400),
        ("$export?_typeFilter=Observation?nonsense=1", ASYNC, 400),
        ("$export?_colour=id", ASYNC, 400),
        ("$export?_colour=id", {**ASYNC, "prefer": "respond-async, handling=lenient"}, 202),
        ("$export?_since=2026-11-22T00:00:00Z", ASYNC, 202),
        ("Observation/$export", ASYNC, 404),
        ("$export-status/none", {}, 404),
        ("$export-file/none/Patient.ndjson", {"accept": "*/*"}, 404),
    ],
)
def test_invalid_export_returns_operation_outcome(server: Served, limited: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = server.request(limited, "GET", path, headers=headers)
    assert answer.status == status and answer.json["resourceType"] == "OperationOutcome"


def test_export_inside_batch_or_transaction_returns_400(server: Served, limited: str) -> None:
    def answered(type: str) -> Answer:
        entry = {"request": {"method": "GET", "url": "Patient/$export"}}
        return server.request(limited, "POST", "", body={"resourceType": "Bundle", "type": type, "entry": [entry]}, headers=ASYNC)

    later = server.get(limited, answered("batch").headers["content-location"])  # a batch of reads has the preference, too
    assert later.json["entry"][0]["response"]["status"].startswith("400")
    assert answered("transaction").status == 400
