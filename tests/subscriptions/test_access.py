"""A Subscription rests on the access of who made it, as it is at the moment of each attempt."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import date, datetime
from typing import Any

import msgspec
import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.clock import SECOND
from fhir_server.consent.security_labels import ACT_CODE
from fhir_server.interactions import subscription_records
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import digest
from tests.served import micros
from tests.subscriptions.environment import Subscribing, by_criteria, by_topic, lab

RELEASE = "https://fhir-server.example/ig/StructureDefinition/release-at"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"


def hidden_lab(patient: str = "teen") -> dict[str, Any]:
    return lab(patient, "5221-7")  # HIV


def family_of(world: Subscribing, token: str) -> str:
    grant = world.served.run(token_grants.find(world.served.parts.store, "access", digest(token), world.served.parts.clock()))
    assert grant is not None
    return grant.family


def other_feed(world: Subscribing) -> str:
    """A token of another institution's feed."""
    keys: dict[str, Any] = {"keys": []}
    client = Client("other", "Other", "backend", "private_key_jwt", "system/*.cruds", jwks=keys, clearance=("*",), trusted=True)
    world.served.run(clients.save(world.served.parts.store, client))
    return world.served.token("other")


async def log_lines(world: Subscribing) -> list[bytes]:
    await world.served.parts.auditor.flush()
    async with world.served.parts.store.snapshot() as snapshot:
        return [text for _, text in await snapshot.log_lines_unfiltered(LOG_NAME, None, before=None, limit=1000)]


def birthday(world: Subscribing, patient: str, years: int) -> int:
    born = date.fromisoformat(world.served.get(world.served.token(), f"Patient/{patient}").json["birthDate"])
    return micros(datetime(born.year + years, born.month, born.day, tzinfo=world.served.parts.policy.timezone).isoformat())


def test_a_hidden_write_causes_no_delivery_and_takes_no_number(any_store: Subscribing) -> None:
    parent, feed = any_store.served.app_token("parent-a", "teen"), any_store.served.token()
    any_store.active(parent, by_topic())
    any_store.active(feed, by_topic("Observation", "empty"))
    told = []
    for body in (hidden_lab(), lab(), hidden_lab(), lab("adult"), lab()):
        any_store.write(body)
        any_store.look()
        told.append(len([1 for number, name in any_store.endpoint.events() if name]))
    assert told == [0, 1, 1, 1, 2], "the parent's"
    assert [number for number, name in any_store.endpoint.events() if name] == [1, 2]
    assert len([1 for _, name in any_store.endpoint.events() if not name]) == 5, "the feed sees each, and is told without content"


def test_a_full_resource_is_what_the_subscriber_would_read(world: Subscribing) -> None:
    parent = world.served.app_token("parent-a", "teen")
    world.active(parent, by_topic("Observation", "full-resource"))
    id = world.write(lab() | {"note": [{"text": "not for a parent"}], "valueQuantity": {"value": 1, "unit": "g"}})
    world.look()
    (bundle,) = world.endpoint.bundles()
    assert bundle["entry"][1]["resource"] == world.served.get(parent, f"Observation/{id}").json
    assert "not for a parent" not in world.endpoint.requests[-1].content.decode()


def test_criteria_by_a_hidden_element_find_nothing(world: Subscribing) -> None:
    parent = world.served.app_token("parent-a", "teen")
    world.active(parent, by_criteria("Observation?_security=R"))
    world.write(lab() | {"meta": {"security": [{"system": CONFIDENTIALITY, "code": "R"}]}})
    world.look()
    assert len(world.endpoint.requests) == 1, "the first was to ask the endpoint"


def test_what_became_hidden_between_two_attempts_is_not_told(any_store: Subscribing) -> None:
    served, parent, feed = any_store.served, any_store.served.app_token("parent-a", "teen"), any_store.served.token()
    any_store.active(parent, by_topic("Observation", "full-resource"))
    id = any_store.write(lab())
    any_store.endpoint.statuses = [500]
    any_store.look(6)
    assert len(any_store.endpoint.bundles()) == 1
    labelled = lab() | {"id": id, "meta": {"security": [{"system": ACT_CODE, "code": "HIV"}]}}
    assert served.request(feed, "PUT", f"Observation/{id}", body=labelled).status == 200
    any_store.look(600)
    other = any_store.write(lab())
    any_store.look()
    assert any_store.endpoint.events()[1:] == [(1, f"Observation/{other}")]


def test_revocation_ends_the_subscription_in_the_same_step(any_store: Subscribing) -> None:
    served, feed = any_store.served, any_store.served.token()
    parent = served.app_token("parent-a", "teen")
    id = any_store.active(parent, by_topic())
    backend = any_store.active(feed, by_topic("Observation", "empty"))
    for token in (parent, feed):
        served.run(served.parts.store.key_values.delete_family(family_of(any_store, token)))
    any_store.write(lab())
    any_store.look()
    assert any_store.endpoint.bundles() == []
    again = served.app_token("parent-a", "teen")
    assert any_store.read(again, id).status == 404 and any_store.read(served.token(), backend).status == 404


def test_a_subscription_of_a_person_ends_with_the_last_token_of_the_grant(world: Subscribing) -> None:
    world.active(world.served.app_token("parent-a", "teen"), by_topic())
    world.look(3700)
    world.write(lab())
    world.look()
    world.look()
    assert world.endpoint.bundles() == [] and world.counts["off"] == 1


def test_a_subscription_of_a_system_outlives_its_token(world: Subscribing) -> None:
    id = world.active(world.served.token(), by_topic())
    world.look(3 * 24 * 3600)
    world.write(lab())
    world.look()
    assert len(world.endpoint.events()) == 1 and world.read(world.served.token(), id).json["status"] == "active"


def test_a_subscription_ends_with_the_registration_of_its_client(world: Subscribing) -> None:
    store = world.served.parts.store
    world.active(world.served.token(), by_topic())
    world.served.run(clients.remove(store, "demo-backend", world.served.parts.clock()))
    world.write(lab(), other_feed(world))
    world.look()
    assert world.endpoint.bundles() == []


def test_scopes_that_the_client_loses_are_lost_at_once(world: Subscribing) -> None:
    store = world.served.parts.store
    world.active(world.served.token(), by_topic())
    client = world.served.run(clients.find(store, "demo-backend"))
    assert client is not None
    world.served.run(clients.save(store, msgspec.structs.replace(client, scopes="system/Patient.cruds system/Subscription.cruds")))
    world.write(lab(), other_feed(world))
    world.look()
    assert world.endpoint.bundles() == []


def test_a_subscription_ends_with_the_account(world: Subscribing) -> None:
    store = world.served.parts.store
    world.active(world.served.app_token("parent-a", "teen"), by_topic())
    user = world.served.run(users.find(store, "parent-a"))
    assert user is not None
    world.served.run(users.save(store, msgspec.structs.replace(user, generation=user.generation + 1)))
    world.write(lab())
    world.look()
    assert world.endpoint.bundles() == []


@pytest.mark.parametrize(("patient", "years", "code"), [("child", 12, "3397-7"), ("teen", 18, "718-7")])
def test_age_limits_hold_to_the_microsecond(any_store: Subscribing, patient: str, years: int, code: str) -> None:
    served, turning = any_store.served, birthday(any_store, patient, years)
    served.at(turning - 600 * SECOND)
    any_store.active(served.app_token("parent-a", patient), by_topic())
    any_store.write(lab(patient, code))
    served.at(turning - 10 * SECOND - 1)
    any_store.look(10)
    assert len(any_store.endpoint.events()) == 1, "one microsecond before"
    served.at(turning - 20 * SECOND)
    any_store.write(lab(patient, code))
    served.at(turning - 10 * SECOND)
    any_store.look(10)
    assert len(any_store.endpoint.events()) == 1, "written before, and not told from the birthday on"


def test_ended_sharing_ends_delivery(world: Subscribing) -> None:
    served, feed = world.served, world.served.token()
    world.active(served.app_token("parent-a", "teen"), by_topic())
    for entry in served.get(feed, "RelatedPerson?patient=teen&_count=50").json["entry"]:
        related = entry["resource"] | {"active": False}
        assert served.request(feed, "PUT", f"RelatedPerson/{related['id']}", body=related).status == 200
    world.write(lab())
    world.look()
    assert world.endpoint.bundles() == []


def test_a_held_result_is_not_told_before_its_release(world: Subscribing) -> None:
    world.active(world.served.app_token("parent-a", "teen"), by_topic())
    release = datetime.fromtimestamp(world.served.parts.clock() / SECOND + 3000).astimezone().isoformat(timespec="seconds")
    world.write(lab() | {"extension": [{"url": RELEASE, "valueInstant": release}]})
    known = world.write(lab())
    world.look()
    assert world.endpoint.events() == [(1, f"Observation/{known}")]


def test_only_the_owner_sees_a_subscription(any_store: Subscribing) -> None:
    served = any_store.served
    owner, other = served.app_token("parent-a", "teen"), served.app_token("adult", "adult")
    id = any_store.active(owner, by_topic(header=["Authorization: Bearer hush"]))
    for path in (f"Subscription/{id}", f"Subscription/{id}/$status", f"Subscription/{id}/$events"):
        assert served.get(owner, path).status == 200
        missing, hidden = served.get(other, path.replace(id, "nothing")), served.get(other, path)
        assert hidden.status == missing.status == 404
        assert hidden.body.replace(id.encode(), b"nothing") == missing.body
    assert served.request(other, "DELETE", f"Subscription/{id}").status == 204, "as of one that does not exist"
    assert served.request(other, "PUT", f"Subscription/{id}", body=by_topic() | {"id": id}).status == 404
    assert served.get(other, "Subscription").json["total"] == 0 and served.get(owner, "Subscription").ids() == [id]
    assert served.get(owner, "?_type=Subscription").ids() == [id] and served.get(other, "?_type=Subscription").ids() == []
    feed = served.token()
    assert served.get(feed, "Subscription").ids() == [id], "the institution's feed"
    for answer in (served.get(owner, f"Subscription/{id}"), served.get(feed, f"Subscription/{id}"), served.get(owner, "Subscription")):
        assert b"hush" not in answer.body and b'"header"' not in answer.body
    any_store.write(lab())
    any_store.look()
    assert any_store.endpoint.requests[-1].headers["authorization"] == "Bearer hush"
    stored = any_store.served.run(any_store.served.parts.store.key_values.list_all(subscription_records.KIND, 0))
    assert len(stored) == 1 and b"hush" not in stored[0][1] and b64encode(b"Bearer hush")[:-4] not in stored[0][1]


def test_a_scope_is_needed_and_its_condition_holds(world: Subscribing) -> None:
    served = world.served
    for scope, status in (
        ("patient/Observation.rs", 403),
        ("patient/Subscription.c", 403),
        ("patient/Subscription.c patient/Observation.s", 403),
        ("patient/Subscription.c patient/Observation.r", 201),
        ("patient/Subscription.c?status=off patient/Observation.r", 403),
    ):
        token = served.app_token("adult", "adult", scope)
        assert served.request(token, "POST", "Subscription", body=by_topic()).status == status, scope
    token = served.app_token("adult", "adult", "patient/Subscription.c patient/Observation.r")
    assert served.request(token, "POST", "Subscription", body=by_criteria("Observation?code=1")).status == 403, "criteria are a search"
    active = served.app_token("adult", "adult", "patient/Subscription.rs?status=active")
    assert served.get(active, "Subscription").json["total"] == 0
    world.look()
    assert served.get(active, "Subscription").json["total"] == 1


def test_each_delivery_is_in_the_audit_log(world: Subscribing) -> None:
    served = world.served
    id = world.active(served.app_token("parent-a", "teen"), by_topic())
    world.write(lab())
    world.look()
    assert len(world.endpoint.events()) == 1
    lines = [json.loads(text) for text in served.run(log_lines(world))]
    (line,) = [line for line in lines if line["event"].get("entity", [{}])[0].get("query")]
    assert [one["what"]["reference"] for one in line["event"]["entity"]] == [f"Subscription/{id}", "Patient/teen"]
    assert line["event"]["agent"][0]["altId"] == "parent-a"
