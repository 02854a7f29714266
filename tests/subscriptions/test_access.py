"""A Subscription rests on the access of who made it, as it is at the moment of each attempt."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import date, datetime
from typing import Any

import httpx
import msgspec
import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.clock import SECOND, instant_text
from fhir_server.consent.security_labels import ACT_CODE
from fhir_server.interactions import subscription_records
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import token_grants
from fhir_server.smart.core.context import digest
from fhir_server.subscriptions import dispatcher
from fhir_server.subscriptions.dispatcher import LEASE
from fhir_server.web.public_fetch import Network
from tests.seeded import seeded
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


@pytest.mark.parametrize("ends", ["by itself", "with its access"])
def test_no_hidden_write_shows_when_a_subscription_ends(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two worlds, one with hidden writes: the same versions of the Subscription at the same moments, and the last one is off."""
    monkeypatch.setattr(dispatcher, "crc32", lambda key: 0)  # the ids differ
    seen = []
    for secrets in (True, False):
        world = Subscribing(seeded())
        body = by_topic()
        if ends == "by itself":
            body["end"] = instant_text(world.served.parts.clock() + 3600 * SECOND)
        id = world.active(world.served.app_token("parent-a", "teen"), body)
        world.look(3581)
        versions = []
        for seconds in 13 * (7,):
            if secrets:
                world.write(hidden_lab())
            world.look(seconds)
            found = world.read(world.served.app_token("parent-a", "teen"), id).json
            versions.append((found["status"], found.get("error"), found["meta"]))
        seen.append(versions)
        world.served.close()
    assert seen[0] == seen[1]
    assert seen[0][0][0] == "active" and seen[0][-1][0] == "off"


@pytest.mark.parametrize("ahead", [250, 400])
def test_no_hidden_write_shows_in_what_is_told_after_a_restart(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a history has been looked at is stored at the same moments: what was released meanwhile is told in both, or in none."""
    monkeypatch.setattr(dispatcher, "crc32", lambda key: 0)
    seen = []
    for secrets in (True, False):
        world = Subscribing(seeded())
        world.active(world.served.app_token("parent-a", "teen"), by_topic())
        world.write(lab() | {"extension": [{"url": RELEASE, "valueInstant": instant_text(world.served.parts.clock() + 200 * SECOND)}]})
        for _ in range(ahead // 10):
            if secrets:
                world.write(hidden_lab())
            world.look(10)
        world.look(LEASE / SECOND + 1, world.new_dispatcher())
        seen.append(len(world.endpoint.events()))
        world.served.close()
    assert seen[0] == seen[1]


def test_each_notification_of_an_attempt_is_of_its_own_moment(world: Subscribing) -> None:
    """A slow endpoint is not told of anything once the access has ended."""
    served = world.served
    world.active(served.app_token("parent-a", "teen"), by_criteria("Observation"))
    world.look(3580)
    for _ in range(3):
        world.write(lab())

    async def slow(request: httpx.Request) -> httpx.Response:
        told.append(request)
        served.at(served.parts.clock() + 4 * SECOND)
        return httpx.Response(200)

    told: list[httpx.Request] = []
    object.__setattr__(served.parts.smart, "network", Network(served.parts.smart.network.resolve, httpx.MockTransport(slow)))
    world.look(6)
    assert len(told) == 1, "the token lived until two seconds after it was told"


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


def test_no_other_grant_of_the_same_person_moves_a_subscription(world: Subscribing) -> None:
    """The narrower one may end it; what it is told, and where, belongs to the grant on which it rests."""
    served = world.served
    owner, later = (served.app_token("adult", "adult") for _ in range(2))
    id = world.active(owner, by_topic())
    moved = by_topic(endpoint="https://other.example/") | {"id": id}
    refused = served.request(later, "PUT", f"Subscription/{id}", body=moved)
    assert refused.status == 403 and "another grant" in refused.body.decode()
    world.write(lab("adult"))
    world.look()
    assert [request.headers["host"] for request in world.endpoint.requests] == 2 * ["app.example"]
    assert served.request(owner, "PUT", f"Subscription/{id}", body=moved).status == 200
    assert served.request(later, "PUT", f"Subscription/{id}", body=moved | {"status": "off"}).status == 200


def test_a_narrower_token_of_a_system_does_not_move_its_subscription(world: Subscribing) -> None:
    served = world.served
    id = world.active(served.token(), by_topic())
    narrow = served.token(scope="system/Subscription.cruds system/Observation.rs?category=laboratory")
    assert served.request(narrow, "PUT", f"Subscription/{id}", body=by_topic() | {"id": id}).status == 403
    assert served.request(served.token(), "PUT", f"Subscription/{id}", body=by_topic() | {"id": id}).status == 200


def test_one_whose_access_has_ended_is_not_requested_again(world: Subscribing) -> None:
    served = world.served
    id = world.active(served.app_token("adult", "adult"), by_topic())
    world.look(3700)
    world.look(60)
    token = served.app_token("adult", "adult")
    assert world.read(token, id).json["status"] == "off"
    answer = served.request(token, "PUT", f"Subscription/{id}", body=by_topic() | {"id": id})
    assert answer.status == 403 and "has ended" in answer.body.decode()
