"""smart-app-state: an app stores its state in a patient's record, and no other app can change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fhir_server.interactions import app_state
from fhir_server.interactions.app_state import MAX_STATE_BYTES
from fhir_server.smart.clients import clients
from fhir_server.smart.discovery.documents import CAPABILITIES
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

SYSTEM = "https://myapp.example"
SCOPE = "patient/Basic.cruds patient/Patient.rs"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = seeded()
    yield made
    made.close()


def state(text: str = "{}", patient: str = "adult", code: str = "display-preferences", **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Basic",
        "code": {"coding": [{"system": SYSTEM, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "extension": [{"url": f"{SYSTEM}/display-preferences-v2", "valueString": text}],
    } | changes


def token(served: Served, user: str = "adult", patient: str = "adult", client: str = "demo-public", scope: str = SCOPE) -> str:
    return served.token(client, scope, user, patient)


def kept(served: Served, bearer: str, **changes: Any) -> tuple[str, str]:
    """Create an app state, and return its id and ETag."""
    answer = served.request(bearer, "POST", "Basic", body=state(**changes))
    assert answer.status == 201, answer.body
    return answer.json["id"], answer.headers["etag"]


def change(served: Served, bearer: str, id: str, etag: str | None, **changes: Any) -> Answer:
    headers = {"if-match": etag} if etag else {}
    return served.request(bearer, "PUT", f"Basic/{id}", body=state(**changes) | {"id": id}, headers=headers)


def end(served: Served, bearer: str, id: str, etag: str | None) -> Answer:
    return served.request(bearer, "DELETE", f"Basic/{id}", headers={"if-match": etag} if etag else {})


def test_smart_107_app_state_capability_is_announced() -> None:
    assert "smart-app-state" in CAPABILITIES


def test_smart_107_app_creates_finds_updates_and_deletes_its_state(served: Served) -> None:
    app = token(served)
    id, etag = kept(served, app, text='{"view":"list"}', code="first")
    found = served.get(app, f"Basic?code={SYSTEM}|first&subject=Patient/adult")
    assert found.ids() == [id]
    assert found.json["entry"][0]["resource"]["extension"][0]["valueString"] == '{"view":"list"}'
    changed = change(served, app, id, etag, text='{"view":"grid"}', code="first")
    assert changed.status == 200 and changed.headers["etag"].startswith('W/"2-')
    assert change(served, app, id, etag, code="first").status == 412  # the ETag is out of date
    assert end(served, app, id, etag).status == 412
    assert end(served, app, id, changed.headers["etag"]).status == 204
    assert served.get(app, f"Basic?code={SYSTEM}|first&subject=Patient/adult").ids() == []
    assert served.get(app, f"Basic/{id}").status == 410


def test_smart_107_change_without_if_match_returns_428(served: Served) -> None:
    app = token(served)
    id, etag = kept(served, app)
    assert change(served, app, id, None).status == 428
    assert end(served, app, id, None).status == 428
    assert change(served, app, "never-was", None).status == 428  # even if it does not exist
    assert change(served, app, id, etag).status == 200


def test_smart_107_state_over_256_kilobytes_returns_413(served: Served) -> None:
    app = token(served)
    room = MAX_STATE_BYTES - len(json.dumps(state(), separators=(",", ":")))
    id, etag = kept(served, app, text="x" * room)
    assert change(served, app, id, etag, text="y" * room).status == 200
    for answer in (
        served.request(app, "POST", "Basic", body=state(text="x" * MAX_STATE_BYTES)),
        change(served, app, id, 'W/"2"', text="x" * MAX_STATE_BYTES),
    ):
        assert (answer.status, answer.json["resourceType"]) == (413, "OperationOutcome")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": {"text": "preferences"}},
        {"code": {"coding": []}},
        {"code": {"coding": [{"code": "x"}]}},
        {"code": {"coding": [{"system": SYSTEM, "code": "x"}, {"system": SYSTEM, "code": "y"}]}},
        {"extension": [{"url": f"{SYSTEM}/x", "valueInteger": 1}]},
        {"extension": [{"url": f"{SYSTEM}/x", "extension": [{"url": "y", "valueString": "z"}]}]},
    ],
    ids=json.dumps,
)
def test_smart_107_state_outside_the_profile_is_refused(served: Served, changes: dict[str, Any]) -> None:
    assert served.request(token(served), "POST", "Basic", body=state() | changes).status in (400, 422)


@pytest.mark.parametrize("other", [("adult", "demo-confidential"), ("proxy-full", "demo-public")], ids=["another app", "another person"])
def test_smart_107_change_by_another_app_or_person_returns_404(served: Served, other: tuple[str, str]) -> None:
    app = token(served)
    id, etag = kept(served, app)
    stranger = token(served, other[0], "adult", other[1])
    assert served.get(stranger, f"Basic/{id}").status == 404
    never = change(served, stranger, "never-was", etag)
    for answer in (change(served, stranger, id, etag, text="mine now"), end(served, stranger, id, etag)):
        assert answer.status == 404
        assert answer.body.replace(id.encode(), b"never-was") == never.body
    assert change(served, app, id, etag).status == 200


READERS = {
    "another app of the person": ("demo-confidential", "patient/*.cruds", "adult", "adult"),
    "another person": ("demo-public", "patient/*.cruds", "proxy-full", "adult"),
    "clinician": ("demo-public", "user/*.cruds", "clinician", None),
    "billing office": ("demo-public", "user/*.cruds", "billing", None),
    "backend without clearance": ("plain", "system/*.cruds", None, None),
}


@pytest.mark.parametrize("store", ["memory", "sqlite", "mongodb"])
def test_app_state_is_seen_by_its_app_and_person_only(store: str, tmp_path: Path) -> None:
    served = seeded(store_url(store, tmp_path))
    try:
        feed = served.run(clients.find(served.parts.store, "demo-backend"))
        assert feed is not None
        plain = msgspec.structs.replace(feed, client_id="plain", clearance=(), trusted=False)
        served.run(clients.save(served.parts.store, plain))
        app = token(served)
        before = {name: _answers(served, served.token(*reader)) for name, reader in READERS.items()}
        id, _ = kept(served, app, code="seen")
        for name, reader in READERS.items():
            bearer = served.token(*reader)
            assert _answers(served, bearer) == before[name], name
            assert served.get(bearer, f"Basic/{id}").status == served.get(bearer, f"Basic/{id}/_history").status == 404, name
        for owner in (app, served.token()):  # the app itself, and the feed that is cleared for everything
            assert id in _answers(served, owner)[0]
            assert served.get(owner, f"Basic/{id}/_history").json["total"] == 1
        assert id in served.get(app, "Patient/adult/$everything").ids("Basic")
    finally:
        served.close()


def _answers(served: Served, bearer: str) -> tuple[list[str], int, list[str]]:
    count = served.get(bearer, "Basic?subject=Patient/adult&_summary=count").json["total"]
    everything = served.get(bearer, "Patient/adult/$everything?_count=500")
    return served.all_ids(bearer, "Basic?subject=Patient/adult"), count, everything.ids("Basic") if everything.status == 200 else []


def test_smart_107_state_owner_cannot_be_forged_or_read(served: Served) -> None:
    app, stranger = token(served), token(served, client="demo-confidential")
    id, etag = kept(served, app)
    source = json.loads(served.get(served.token(), f"Basic/{id}").body)["meta"]["source"]
    assert source.startswith("urn:smart-app-state:")
    assert b"urn:smart-app-state" not in served.get(app, f"Basic/{id}").body
    for forged in (source, "urn:other"):  # the owner's own value too: the app cannot know it
        for answer in (
            served.request(stranger, "POST", "Basic", body=state(meta={"source": forged})),
            change(served, app, id, etag, meta={"source": forged}),
        ):
            assert (answer.status, answer.json["issue"][0]["expression"]) == (403, ["Basic.meta.source"])
    assert change(served, app, id, etag, text="x").status == 200  # the app still owns it
    assert served.get(app, f"Basic?_source={source}").ids() == []


def test_smart_107_state_outside_the_patient_context_is_refused(served: Served) -> None:
    app = token(served)
    for patient in ("child", "newly-adult", "never-was"):
        assert served.request(app, "POST", "Basic", body=state(patient=patient)).status == 403
    without = {name: value for name, value in state().items() if name != "subject"}
    assert served.request(app, "POST", "Basic", body=without).status == 403
    assert served.get(app, "Basic?subject:missing=true").ids() == []
    id, etag = kept(served, app)
    other = token(served, "newly-adult", "newly-adult")
    assert served.get(other, f"Basic/{id}").status == 404
    assert end(served, other, id, etag).status == 404


def test_smart_107_interaction_without_its_scope_returns_403(served: Served) -> None:
    id, etag = kept(served, token(served))
    for scope in ("patient/Basic.rs", "patient/Basic.c patient/Patient.r"):
        app = token(served, scope=f"{scope}")
        assert change(served, app, id, etag).status == 403
        assert end(served, app, id, etag).status == 403
    assert served.request(token(served, scope="patient/Basic.rs patient/Patient.r"), "POST", "Basic", body=state()).status == 403


def test_app_delete_of_other_resources_returns_403(served: Served) -> None:
    app = token(served, scope="patient/*.cruds")
    one = served.get(app, "Observation?patient=adult&_count=1").ids()[0]
    assert served.request(app, "DELETE", f"Observation/{one}", headers={"if-match": 'W/"1"'}).status == 403
    assert served.get(app, f"Observation/{one}").status == 200


def test_smart_107_transaction_applies_the_same_rules(served: Served) -> None:
    app = token(served)
    id, etag = kept(served, app)
    entry: dict[str, Any] = {"resource": state(text="new") | {"id": id}, "request": {"method": "PUT", "url": f"Basic/{id}"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert served.request(app, "POST", "", body=bundle).status == 428
    entry["request"]["ifMatch"] = etag
    assert served.request(token(served, client="demo-confidential"), "POST", "", body=bundle).status == 404
    assert served.request(app, "POST", "", body=bundle).status == 200


def test_owner_value_separates_client_id_from_username() -> None:
    def owner(client: str, user: str) -> str:
        principal = SimpleNamespace(client_id=client, username=user, owner=user, person="somebody")
        return app_state.owner(SimpleNamespace(principal=principal, may_write_labels=False), "Basic")  # type: ignore[arg-type]

    assert owner("a b", "c") != owner("a", "b c") and owner("a", "c") == owner("a", "c") != ""
