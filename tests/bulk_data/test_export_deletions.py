"""The deletions in an export with ``_since``: those that the caller may know of, and no others.  On every store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.clock import SECOND
from fhir_server.interactions import bulk_export_job
from fhir_server.resources import validate
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from tests.bulk_data.polling import finished
from tests.bulk_data.test_bulk_export import GROUP, KEYS, kicked, rows
from tests.seeded import seeded
from tests.served import Served, micros, store_url

SINCE = "2026-11-22T00:00:00Z"


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """The demo's records on the day after they were written."""
    served = seeded(store_url(request.param, tmp_path))
    limited = Client("limited", "limited", "backend", "private_key_jwt", "system/*.rs", jwks=KEYS, clearance=("MIXED",))
    served.run(clients.save(served.parts.store, limited))
    assert served.request(served.token(), "PUT", "Group/panel", body=GROUP).status == 201
    served.at("2026-11-22T12:00:00-05:00")
    yield served
    served.close()


def bundles(server: Served, token: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in manifest["deleted"]:
        assert file["type"] == "Bundle"
        answer = server.get(token, file["url"], accept="application/fhir+ndjson")
        assert answer.status == 200 and answer.headers["content-type"].startswith("application/fhir+ndjson")
        found += [json.loads(line) for line in answer.body.decode().splitlines()]
    return found


def deletions(server: Served, token: str, path: str) -> list[str]:
    """Run an export, and return what its deletions name."""
    found = bundles(server, token, finished(server, token, kicked(server, token, path)))
    return sorted(entry["request"]["url"] for bundle in found for entry in bundle["entry"])


def delete(server: Served, *names: str) -> None:
    for name in names:
        assert server.request(server.token(), "DELETE", name).status == 204


def of(server: Served, token: str, patient: str) -> list[str]:
    return server.all_ids(token, f"Observation?patient={patient}&_count=100")


def test_deleted_resources_are_named_by_transactions_that_delete_them(server: Served) -> None:
    feed = server.token()
    one, two, *_ = of(server, feed, "adult")
    delete(server, f"Observation/{one}", f"Observation/{two}")
    manifest = finished(server, feed, kicked(server, feed, f"$export?_type=Observation,Patient&_since={SINCE}"))
    (bundle,) = bundles(server, feed, manifest)
    assert bundle["type"] == "transaction" and validate.check("Bundle", jsontext.parse(jsontext.dumps(bundle))) == ()
    assert {entry["request"]["method"] for entry in bundle["entry"]} == {"DELETE"}
    assert sorted(entry["request"]["url"] for entry in bundle["entry"]) == sorted([f"Observation/{one}", f"Observation/{two}"])
    assert manifest["output"] == []


@pytest.mark.parametrize(("zone", "hour", "is_found"), [("UTC", 2, True), ("Asia/Tokyo", -5, True), ("America/New_York", 2, False)])
def test_a_day_of_since_is_that_of_the_institution_for_deletions_too(zone: str, hour: int, is_found: bool) -> None:
    """Deleted ``hour`` hours after midnight UTC."""
    served = seeded(search_timezone=zone)
    midnight = micros("2026-11-22T00:00:00Z")
    served.at(midnight + hour * 3600 * SECOND)
    name = f"Observation/{of(served, served.token(), 'adult')[0]}"
    delete(served, name)
    served.at(midnight + 24 * 3600 * SECOND)
    assert deletions(served, served.token(), "$export?_type=Observation&_since=2026-11-22") == ([name] if is_found else [])
    served.close()


def test_without_since_there_are_no_deletions(server: Served) -> None:
    delete(server, f"Observation/{of(server, server.token(), 'adult')[0]}")
    assert deletions(server, server.token(), "$export?_type=Observation") == []


def test_deletions_before_since_are_left_out(server: Served) -> None:
    delete(server, f"Observation/{of(server, server.token(), 'adult')[0]}")
    assert deletions(server, server.token(), "$export?_type=Observation&_since=2026-11-22T17:00:01Z") == []
    assert len(deletions(server, server.token(), "$export?_type=Observation&_since=2026-11-22T17:00:00Z")) == 1


def test_a_resource_that_the_caller_never_saw_is_no_deletion(server: Served) -> None:
    feed, parent = server.token(), server.app_token("parent-a", "teen")
    seen, all = of(server, parent, "teen"), of(server, feed, "teen")
    hidden, shown = next(id for id in all if id not in seen), seen[0]
    delete(server, f"Observation/{hidden}", f"Observation/{shown}")
    path = f"Patient/$export?_type=Observation&_since={SINCE}"
    assert deletions(server, parent, path) == [f"Observation/{shown}"]
    assert deletions(server, feed, path) == sorted([f"Observation/{hidden}", f"Observation/{shown}"])


def test_a_resource_that_became_hidden_is_no_deletion_then_or_when_it_is_deleted(server: Served) -> None:
    feed, proxy = server.token(), server.app_token("proxy-full", "adult")
    path = f"Patient/$export?_type=Observation&_since={SINCE}"
    id = of(server, proxy, "adult")[0]
    whole = server.get(feed, f"Observation/{id}").json
    assert server.request(feed, "PUT", f"Observation/{id}", body={**whole, "status": "entered-in-error"}).status == 200
    assert id not in of(server, proxy, "adult") and deletions(server, proxy, path) == []
    delete(server, f"Observation/{id}")
    assert deletions(server, proxy, path) == [] and deletions(server, feed, path) == [f"Observation/{id}"]


def test_what_was_stored_again_is_exported_and_no_deletion(server: Served) -> None:
    feed = server.token()
    id = of(server, feed, "adult")[0]
    whole = server.get(feed, f"Observation/{id}").json
    delete(server, f"Observation/{id}")
    server.at("2026-11-22T12:30:00-05:00")
    assert server.request(feed, "PUT", f"Observation/{id}", body=whole).status == 201
    manifest = finished(server, feed, kicked(server, feed, f"$export?_type=Observation&_since={SINCE}"))
    assert manifest["deleted"] == [] and [row["id"] for row in rows(server, feed, manifest)["Observation"]] == [id]


def test_what_is_deleted_after_the_kick_off_is_left_to_the_next_export(server: Served) -> None:
    feed = server.token()
    location = kicked(server, feed, f"$export?_type=Observation&_since={SINCE}")
    server.at("2026-11-22T12:30:00-05:00")
    id = of(server, feed, "adult")[0]
    delete(server, f"Observation/{id}")
    manifest = finished(server, feed, location)
    assert manifest["deleted"] == []
    assert deletions(server, feed, f"$export?_type=Observation&_since={manifest['transactionTime']}") == [f"Observation/{id}"]


def test_export_of_a_group_or_of_patients_has_their_deletions_alone(server: Served) -> None:
    feed, limited = server.token(), server.token("limited", "system/*.rs")
    names = {patient: f"Observation/{of(server, limited, patient)[0]}" for patient in ("adult", "teen", "child")}
    organization = {"resourceType": "Organization", "id": "closed", "name": "Closed"}
    assert server.request(feed, "PUT", "Organization/closed", body=organization).status == 201
    delete(server, *names.values(), "Organization/closed")
    group = deletions(server, limited, f"Group/panel/$export?_since={SINCE}")
    assert group == sorted([names["adult"], names["teen"], "Organization/closed"])
    path = f"Patient/$export?_type=Observation&patient=Patient/child&_since={SINCE}"
    assert deletions(server, limited, path) == [names["child"]]


def test_access_that_ended_hides_deletions_that_were_found_before(server: Served) -> None:
    proxy, feed = server.app_token("proxy-full", "adult"), server.token()
    delete(server, f"Observation/{of(server, proxy, 'adult')[0]}")
    manifest = finished(server, proxy, kicked(server, proxy, f"Patient/$export?_type=Observation&_since={SINCE}"))
    assert bundles(server, proxy, manifest)
    for consent in server.get(feed, "Consent?patient=adult&status=active&_count=100").json["entry"]:
        body = {**consent["resource"], "status": "inactive"}
        assert server.request(feed, "PUT", f"Consent/{body['id']}", body=body).status == 200
    assert server.get(proxy, manifest["deleted"][0]["url"], accept="application/fhir+ndjson").status in (401, 403, 404)


def test_deletions_of_many_pages_are_each_named_once(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_export_job, "_PAGE", 2)
    monkeypatch.setattr(bulk_export_job, "_PAGES", 1)
    feed = server.token()
    names = [f"Observation/{id}" for id in of(server, feed, "adult")[:5]]
    delete(server, *names)
    assert deletions(server, feed, f"$export?_type=Observation&_since={SINCE}") == sorted(names)
