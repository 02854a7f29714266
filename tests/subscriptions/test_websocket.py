"""Notifications on a websocket: how it is bound, what it is told, what ends it, and who gets nothing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.clock import SECOND
from fhir_server.subscriptions import socket_app, sockets
from fhir_server.web.websockets import POLICY
from tests.subscriptions.environment import Subscribing, by_topic, lab, part, status_of
from tests.subscriptions.websockets import Subscriber, binding, criteria_on_websocket, family_of, topic_on_websocket

Json = dict[str, Any]


def opened(world: Subscribing, **options: Any) -> Subscriber:
    return Subscriber(world, world.dispatcher, **options)


def bound(world: Subscribing, token: str, *ids: str, **options: Any) -> Subscriber:
    """A websocket that is bound by a binding token, and has been told so."""
    one = opened(world, **options)
    one.send(f"bind-with-token {binding(world.served, token, *ids)}")
    assert not one.closed, one.sent
    world.look()
    return one


def numbers(one: Subscriber) -> list[str]:
    return [part(event, "event-number") for bundle in one.bundles() for event in status_of(bundle)["parameter"] if "part" in event]


def test_a_topic_is_told_on_the_websocket_that_bound_it(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.subscribe(feed, topic_on_websocket())
    one = bound(any_store, feed, id)
    assert [part({"part": status_of(each)["parameter"]}, "type") for each in one.bundles("handshake")] == ["handshake"]
    assert any_store.read(feed, id).json["status"] == "active"
    first = any_store.write(lab())
    any_store.look(1)
    second = any_store.write(lab())
    any_store.look()
    assert [entry["fullUrl"].rpartition("/")[2] for each in one.bundles() for entry in each["entry"][1:]] == [first, second]
    assert numbers(one) == ["1", "2"]
    assert any_store.served.get(feed, f"Subscription/{id}/$events").json["entry"][1]["fullUrl"].endswith(first)
    any_store.look(200)
    assert numbers(one) == ["1", "2"] and not one.closed


def test_r4_criteria_send_bound_and_a_ping_for_each_change(any_store: Subscribing) -> None:
    parent = any_store.served.app_token("parent-a", "teen")
    id = any_store.subscribe(parent, criteria_on_websocket("Observation?category=laboratory"))
    one = opened(any_store, token=parent)
    one.send(f"bind {id}")
    any_store.look()
    assert one.messages == [f"bound {id}"] and any_store.read(parent, id).json["status"] == "active"
    any_store.write(lab())
    any_store.write(lab("adult"))
    any_store.write(lab())
    any_store.look()
    assert one.messages == [f"bound {id}", f"ping {id}", f"ping {id}"]


def test_what_the_subscriber_does_not_see_is_not_told(any_store: Subscribing) -> None:
    parent = any_store.served.app_token("parent-a", "teen")
    id = any_store.subscribe(parent, topic_on_websocket("Observation", "full-resource"))
    one = bound(any_store, parent, id)
    any_store.write(lab(code="75622-1"))  # an HIV test
    any_store.look()
    assert one.bundles() == []
    seen = any_store.write(lab())
    any_store.look()
    (bundle,) = one.bundles()
    assert bundle["entry"][1]["resource"] == any_store.served.get(parent, f"Observation/{seen}").json and numbers(one) == ["1"]


def test_without_a_websocket_notifications_wait_and_follow_when_one_is_bound(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.subscribe(feed, topic_on_websocket())
    one = bound(any_store, feed, id)
    one.leave()
    name = any_store.write(lab())
    for seconds in (10, 10, 40, 130):
        any_store.look(seconds)
    feed = any_store.served.token()
    found = any_store.read(feed, id).json
    assert found["status"] == "error" and found["error"] == "The endpoint does not accept notifications."
    assert not lines_of(any_store, "$events"), "nobody was told of the rows"
    other = bound(any_store, feed, id)
    any_store.look()
    assert lines_of(any_store, "$events")
    assert len(other.bundles("handshake")) == 1 and name in other.messages[-1]
    assert any_store.read(feed, id).json["status"] == "active" and one.bundles() == []


def test_a_day_without_a_websocket_ends_the_subscription(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.subscribe(feed, topic_on_websocket())
    for _ in range(40):
        world.look(3600)
    feed = world.served.token()
    assert world.read(feed, id).json["status"] == "off"
    assert world.served.get(feed, f"Subscription/{id}/$get-ws-binding-token").status == 422
    again = world.served.request(feed, "PUT", f"Subscription/{id}", body=topic_on_websocket() | {"id": id})
    assert again.status == 200
    assert len(bound(world, feed, id).bundles("handshake")) == 1


def test_a_client_that_does_not_confirm_is_cut_and_told_again(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.subscribe(feed, topic_on_websocket())
    one = bound(any_store, feed, id)
    one.confirms = False
    any_store.write(lab())
    any_store.look()
    one.settle()
    assert one.is_aborted and len(one.bundles()) == 1
    other = bound(any_store, feed, id)
    any_store.look()
    assert other.bundles() and numbers(other) == numbers(one) == ["1"], "at least once, with the same number"


def lines_of(world: Subscribing, operation: str) -> list[str]:
    """The lines of the audit log about an operation."""
    world.served.run(world.served.parts.auditor.flush())
    lines = [line.decode() for _, line in world.served.run(world.served.parts.store.read_log(LOG_NAME, 0))]
    queries = [(line, one.get("query", "")) for line in lines for one in json.loads(line)["event"].get("entity", ())]
    return [line for line, query in queries if f"/{operation}?" in b64decode(query).decode()]


def answers_alike(world: Subscribing, *subscribers: tuple[Subscriber, str]) -> None:
    for one, message in subscribers:
        one.send(message)
        assert one.closed == POLICY and one.messages == []
    world.look()
    assert len({repr(one.sent) for one, _ in subscribers}) == 1, "byte for byte"


def test_anothers_subscription_is_bound_like_an_absent_one(any_store: Subscribing) -> None:
    served = any_store.served
    owner, other, feed = served.app_token("parent-a", "teen"), served.app_token("adult", "adult"), served.token()
    id = any_store.subscribe(owner, topic_on_websocket())
    answers_alike(
        any_store,
        (opened(any_store, token=other), f"bind {id}"),
        (opened(any_store, token=other), "bind no-such-one"),
        (opened(any_store, token=feed), f"bind {id}"),  # a system that may read all
        (opened(any_store), f"bind {id}"),  # without a token
        (opened(any_store), f"bind-with-token {'x' * 43}"),
        (opened(any_store, token=owner), "bind"),
        (opened(any_store, token=owner), "nonsense"),
        (opened(any_store, token=owner), f"bind {id} "),
    )
    for token in (other, feed):
        absent_id = "0" + id[1:] if id[0] != "0" else "1" + id[1:]
        foreign, absent = (served.get(token, f"Subscription/{name}/$get-ws-binding-token") for name in (id, absent_id))
        assert foreign.status == absent.status == 404
        assert foreign.body.replace(id.encode(), absent_id.encode()) == absent.body and foreign.headers == absent.headers
    assert any_store.read(owner, id).json["status"] == "requested"


def test_a_binding_token_is_good_once_and_for_a_minute(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.subscribe(feed, topic_on_websocket())
    token = binding(any_store.served, feed, id)
    first, second = opened(any_store), opened(any_store)
    first.send(f"bind-with-token {token}")
    second.send(f"bind-with-token {token}")
    any_store.look()
    assert not first.closed and first.bundles("handshake") and second.closed == POLICY and not second.messages
    late = binding(any_store.served, feed, id)
    any_store.served.at(any_store.served.parts.clock() + 61 * SECOND)
    third = opened(any_store)
    third.send(f"bind-with-token {late}")
    assert third.closed == POLICY and not first.closed


def test_a_binding_token_says_what_it_is_for(any_store: Subscribing) -> None:
    served, feed = any_store.served, any_store.served.token()
    ids = sorted(any_store.subscribe(feed, topic_on_websocket(type)) for type in ("Observation", "Patient"))
    hook = any_store.subscribe(feed, by_topic())
    answer = served.get(feed, "Subscription/$get-ws-binding-token")
    parameters = {one["name"]: one for one in answer.json["parameter"]}
    assert [one["valueString"] for one in answer.json["parameter"] if one["name"] == "subscription"] == ids
    assert parameters["websocket-url"]["valueUrl"] == served.settings.origin.replace("http", "ws") + "/websocket"
    assert parameters["expiration"]["valueDateTime"] > "2026-11-21T" and answer.headers["cache-control"] == "no-store"
    asked = {"resourceType": "Parameters", "parameter": [{"name": "id", "valueId": ids[0]}]}
    assert served.request(feed, "POST", "Subscription/$get-ws-binding-token", body=asked).status == 200
    assert served.get(feed, f"Subscription/{hook}/$get-ws-binding-token").status == 422
    assert served.get(feed, "Subscription/$get-ws-binding-token?nope=1").status == 400
    unable = served.token(scope="system/Observation.rs")
    assert served.get(unable, f"Subscription/{ids[0]}/$get-ws-binding-token").status == 403
    assert served.get(None, f"Subscription/{ids[0]}/$get-ws-binding-token").status == 401


def test_a_narrower_grant_of_the_same_person_binds_nothing(any_store: Subscribing) -> None:
    served = any_store.served
    wide = served.app_token("parent-a", "teen")
    id = any_store.subscribe(wide, topic_on_websocket())
    narrow = served.app_token("parent-a", "teen", "patient/Subscription.cruds patient/Patient.r")
    assert served.get(narrow, f"Subscription/{id}/$get-ws-binding-token").status == 403
    one = opened(any_store, token=narrow)
    one.send(f"bind {id}")
    any_store.look()
    assert one.closed == POLICY and not one.messages


def revoked(world: Subscribing, token: str, id: str) -> None:
    (record,) = world.served.run(world.served.parts.store.key_values.list_all("subscription", 0))
    world.served.run(world.served.parts.store.key_values.delete_family(family_of(record[1])))


def deleted(world: Subscribing, token: str, id: str) -> None:
    assert world.served.request(token, "DELETE", f"Subscription/{id}").status == 204


def set_to_off(world: Subscribing, token: str, id: str) -> None:
    body = world.read(token, id).json | {"status": "off"}
    assert world.served.request(token, "PUT", f"Subscription/{id}", body=body).status == 200


def expired(world: Subscribing, token: str, id: str) -> None:
    world.served.at(world.served.parts.clock() + 3601 * SECOND)


def made_a_rest_hook(world: Subscribing, token: str, id: str) -> None:
    assert world.served.request(token, "PUT", f"Subscription/{id}", body=by_topic() | {"id": id}).status == 200


@pytest.mark.parametrize("end", [revoked, deleted, set_to_off, expired, made_a_rest_hook], ids=lambda end: end.__name__)
def test_the_end_of_access_closes_the_websocket(any_store: Subscribing, end: Callable[[Subscribing, str, str], None]) -> None:
    parent = any_store.served.app_token("parent-a", "teen")
    id = any_store.subscribe(parent, topic_on_websocket())
    one = bound(any_store, parent, id)
    before = list(one.messages)
    end(any_store, parent, id)
    any_store.write(lab())
    any_store.look(70)
    one.settle()
    assert one.messages == before and one.sent[-1] == {"type": "websocket.close", "code": POLICY}, "no hint of why"


def test_whoever_binds_last_is_told(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.subscribe(feed, topic_on_websocket())
    first = bound(any_store, feed, id)
    second = bound(any_store, feed, id)
    any_store.write(lab())
    any_store.look()
    first.settle()
    assert first.closed == POLICY and not first.bundles() and len(second.bundles()) == 1


def test_the_server_that_holds_the_websocket_tells(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.look()  # this one has the lease
    id = any_store.subscribe(feed, topic_on_websocket())
    other = any_store.new_dispatcher()
    one = Subscriber(any_store, other)
    one.send(f"bind-with-token {binding(any_store.served, feed, id)}")
    any_store.write(lab())
    any_store.look()
    assert not one.messages, "the server with the lease leaves it to the one with the websocket"
    any_store.look(dispatcher=other)
    assert len(one.bundles("handshake")) == len(one.bundles()) == 1
    here = bound(any_store, feed, id)
    any_store.write(lab())
    any_store.look(70, dispatcher=other)
    one.settle()
    any_store.look()
    assert one.closed == POLICY and len(one.bundles()) == 1 and numbers(here) == ["2"]


def test_a_websocket_of_a_dead_server_is_waited_for_no_longer_than_its_record_lasts(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.look()
    id = any_store.subscribe(feed, topic_on_websocket())
    dead = any_store.new_dispatcher()
    Subscriber(any_store, dead).send(f"bind-with-token {binding(any_store.served, feed, id)}")
    any_store.look(dispatcher=dead)
    any_store.write(lab())
    for _ in range(12):
        any_store.look(60)
    assert any_store.read(any_store.served.token(), id).json["status"] == "error"


def test_a_websocket_has_several_subscriptions(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    ids = [any_store.subscribe(feed, topic_on_websocket()), any_store.subscribe(feed, criteria_on_websocket("Observation"))]
    one = bound(any_store, feed, *ids)
    any_store.write(lab())
    any_store.look()
    assert len(one.bundles()) == 1 and f"ping {ids[1]}" in one.messages
    deleted(any_store, feed, ids[0])
    any_store.look(70)
    one.settle()
    assert one.closed == 0
    deleted(any_store, feed, ids[1])
    any_store.look(70)
    one.settle()
    assert one.closed == POLICY


@pytest.mark.parametrize(
    ("origin", "is_taken"),
    [
        ("http://127.0.0.1:8765", True), ("http://127.0.0.1:8000", True), ("https://evil.example", False), ("null", False),
        ("http://127.0.0.1:8765.evil.example", False), ("http://127.0.0.1", False),
    ],
)  # fmt: skip
def test_a_page_of_another_origin_binds_nothing(world: Subscribing, origin: str, is_taken: bool) -> None:
    parent = world.served.app_token("parent-a", "teen")
    id = world.subscribe(parent, topic_on_websocket())
    one = opened(world, origin=origin)
    one.send(f"bind-with-token {binding(world.served, parent, id)}")
    world.look()
    assert bool(one.messages) == is_taken and one.closed == (0 if is_taken else POLICY)


def test_an_invalid_access_token_opens_nothing(world: Subscribing) -> None:
    one = opened(world, token="x")
    assert one.refused == 401 and len(world.dispatcher.sockets) == 0
    start = one.sent[0]
    assert (b"www-authenticate", b'Bearer realm="fhir"') in start["headers"]


def test_there_are_so_many_websockets(world: Subscribing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.dispatcher.sockets, "_most", 3)
    feed = world.served.token()
    id, other = world.subscribe(feed, topic_on_websocket()), world.subscribe(feed, topic_on_websocket("Patient"))
    kept = bound(world, feed, id)
    idle = [opened(world), opened(world)]
    late = opened(world)
    idle[0].settle()
    assert [one.closed for one in idle] == [POLICY, 0] and not late.refused and len(world.dispatcher.sockets) == 3
    second = bound(world, feed, other)  # takes the place of the one that was idle
    late.send(f"bind-with-token {binding(world.served, feed, world.subscribe(feed, topic_on_websocket('Account')))}")
    assert not kept.closed and not second.closed and not late.closed
    assert opened(world).refused == 503


def test_a_caller_has_so_many_websockets(world: Subscribing) -> None:
    feed = world.served.token()
    held = [bound(world, feed, world.subscribe(feed, topic_on_websocket())) for _ in range(sockets.OF_ONE_CALLER + 1)]
    adult = world.served.app_token("adult", "adult")
    bound(world, adult, world.subscribe(adult, topic_on_websocket()))
    held[0].settle()
    assert [one.closed for one in held] == [POLICY] + [0] * sockets.OF_ONE_CALLER


def test_a_flood_of_messages_closes_the_websocket(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.subscribe(feed, topic_on_websocket())
    one = opened(world, token=feed)
    for _ in range(socket_app.MESSAGES + 1):
        assert not one.closed
        one.send(f"bind {id}")
    assert one.closed == POLICY


def test_a_websocket_to_which_nothing_is_bound_is_closed(world: Subscribing) -> None:
    one = opened(world, bind_seconds=0)
    one.settle()
    assert one.sent[-1] == {"type": "websocket.close", "code": POLICY} and len(world.dispatcher.sockets) == 0


def test_what_is_bound_has_a_line_in_the_audit_log_without_secrets(any_store: Subscribing) -> None:
    served, parent = any_store.served, any_store.served.app_token("parent-a", "teen")
    id = any_store.subscribe(parent, topic_on_websocket())
    token = binding(served, parent, id)
    one = opened(any_store)
    one.send(f"bind-with-token {token}")
    other = opened(any_store)
    other.send(f"bind-with-token {token}")
    taken, refused = lines_of(any_store, "$bind")
    assert f"Subscription/{id}" in taken and '"outcomeDesc":"200"' in taken and "parent-a" in taken
    assert '"outcomeDesc":"401"' in refused and id not in refused
    lines = [line.decode() for _, line in served.run(served.parts.store.read_log(LOG_NAME, 0))]
    assert not any(token in line or parent in line for line in lines)
