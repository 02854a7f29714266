"""X-Provenance (http://hl7.org/fhir/R4/provenance.html#header): stored with what a request writes, or neither is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Answer, Served, store_url

DEVICE = {"who": {"display": "Feed"}}
RECORDED = "2026-11-21T12:00:00-05:00"


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


def provenance(**more: Any) -> str:
    return json.dumps({"resourceType": "Provenance", "recorded": RECORDED, "agent": [DEVICE], **more})


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}, **more}


def send(served: Served, method: str, path: str, body: Any, header: str | None = None, token: str = "", **headers: str) -> Answer:
    named = {"x-provenance": provenance() if header is None else header}
    return served.request(token or served.token(), method, path, body=body, headers={**named, **headers})


def provenances(served: Served, target: str) -> list[Any]:
    return [entry["resource"] for entry in served.get(served.token(), f"Provenance?target={target}").json.get("entry", [])]


def total(served: Served, type: str) -> int:
    return int(served.get(served.token(), f"{type}?_summary=count").json["total"])


def test_create_update_and_patch_store_it_with_their_resource_as_target(served: Served) -> None:
    made = send(served, "POST", "Observation", observation())
    name = f"Observation/{made.json['id']}"
    assert made.status == 201
    (found,) = provenances(served, name)
    assert found["target"] == [{"reference": name}] and found["agent"] == [DEVICE] and found["recorded"] == RECORDED
    assert send(served, "PUT", name, observation(id=made.json["id"])).status == 200
    operations = json.dumps([{"op": "replace", "path": "/status", "value": "amended"}]).encode()
    assert send(served, "PATCH", name, operations, **{"content-type": "application/json-patch+json"}).status == 200
    assert send(served, "PUT", f"Observation?_id={made.json['id']}", observation()).status == 200
    assert len(provenances(served, name)) == 4


def test_conditional_create_with_a_match_stores_none(served: Served) -> None:
    row = observation(identifier=[{"system": "urn:test:provenance", "value": "once"}])
    answers = [send(served, "POST", "Observation", row, **{"if-none-exist": "identifier=urn:test:provenance|once"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    assert len(provenances(served, f"Observation/{answers[0].json['id']}")) == 1


@pytest.mark.parametrize(
    "header",
    [
        "", "x", "[]", "null", "{}", '"x"', '{"resourceType":"Patient"}', provenance(target=[{"reference": "Patient/adult"}]),
        provenance(agent=[]), provenance(colour="red"), provenance(recorded="yesterday"), provenance() + ", " + provenance(),
        provenance()[:-1] + ',"recorded":"2026-11-22T12:00:00-05:00"}',
    ],
)  # fmt: skip
def test_malformed_one_is_refused_and_nothing_is_stored(served: Served, header: str) -> None:
    before = total(served, "Observation"), total(served, "Provenance")
    assert send(served, "POST", "Observation", observation(), header).status == 400
    entry = {"resource": observation(), "request": {"method": "POST", "url": "Observation"}}
    assert send(served, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}, header).status == 400
    assert (total(served, "Observation"), total(served, "Provenance")) == before


def test_one_that_may_not_be_created_undoes_the_write(served: Served) -> None:
    before = total(served, "Observation"), total(served, "Provenance")
    unresolved = provenance(agent=[{"who": {"reference": "Practitioner/nobody"}}])
    answer = send(served, "POST", "Observation", observation(), unresolved)
    assert answer.status == 422 and answer.json["issue"][0]["diagnostics"].startswith("X-Provenance: ")
    assert (
        send(served, "POST", "Observation", observation(), token=served.token(scope="system/Observation.cruds system/Patient.rs")).status
        == 403
    )
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    foreign = provenance(agent=[{"who": {"reference": "Patient/adult"}}])
    assert send(served, "POST", "Observation", observation(), foreign, token=clinician).status == 403  # staff sign with their own name
    assert (total(served, "Observation"), total(served, "Provenance")) == before


def test_hidden_agent_is_answered_like_an_absent_one(served: Served) -> None:
    token = served.token("demo-public", "user/Observation.cruds user/Provenance.cruds user/Patient.rs?_id=adult", "clinician")
    told = []
    for target in ("Patient/teen", "Patient/none"):
        answer = send(served, "POST", "Observation", observation(), provenance(entity=[{"role": "source", "what": {"reference": target}}]),
                      token=token)  # fmt: skip
        told.append((answer.status, answer.body.replace(target.encode(), b"x")))
    assert told[0] == told[1] and told[0][0] in (403, 422)


def test_transaction_stores_one_for_all_that_it_writes(served: Served) -> None:
    known = served.request(served.token(), "POST", "Observation", body=observation()).json["id"]
    gone = served.request(served.token(), "POST", "Observation", body=observation()).json["id"]
    entries = [
        {"resource": observation(), "request": {"method": "POST", "url": "Observation"}},
        {"resource": observation(id=known), "request": {"method": "PUT", "url": f"Observation/{known}"}},
        {"request": {"method": "DELETE", "url": f"Observation/{gone}"}},
        {"request": {"method": "GET", "url": "Patient/adult"}},
    ]
    answer = send(served, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    names = [f"Observation/{answer.json['entry'][0]['resource']['id']}", f"Observation/{known}"]
    (found,) = provenances(served, names[0])
    assert [target["reference"] for target in found["target"]] == names
    assert provenances(served, f"Observation/{gone}") == []


def test_requests_that_write_no_version_do_not_take_it(served: Served) -> None:
    made = served.request(served.token(), "POST", "Observation", body=observation()).json["id"]
    batch = {"resourceType": "Bundle", "type": "batch", "entry": []}
    assert send(served, "POST", "", batch).status == 400
    assert send(served, "DELETE", f"Observation/{made}", None).status == 400
    assert send(served, "DELETE", f"Observation?_id={made}", None).status == 400
    assert served.get(served.token(), f"Observation/{made}").status == 200
    assert "X-Provenance" in served.request(None, "OPTIONS", "Observation").headers["access-control-allow-headers"]
