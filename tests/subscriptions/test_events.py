"""What a subscriber is told: what it sees, in order, numbered without gaps, and no more than it asked for."""

from __future__ import annotations

import pytest

from fhir_server.writing.indexing_steps import index_all
from tests.subscriptions.environment import ENDPOINT, Subscribing, by_criteria, by_topic, lab, status_of, value


def test_created_updated_and_deleted_resources_are_told_in_order_and_once(any_store: Subscribing) -> None:
    served, feed = any_store.served, any_store.served.token()
    any_store.active(feed, by_topic())
    one, two = any_store.write(lab()), any_store.write(lab())
    any_store.look()
    assert served.request(feed, "PUT", f"Observation/{one}", body=lab() | {"id": one, "status": "amended"}).status == 200
    any_store.look()
    assert served.request(feed, "DELETE", f"Observation/{two}").status == 204
    any_store.look()
    any_store.look()
    assert any_store.endpoint.events() == [
        (1, f"Observation/{min(one, two)}"), (2, f"Observation/{max(one, two)}"), (3, f"Observation/{one}"), (4, f"Observation/{two}"),
    ]  # fmt: skip
    assert [method for method, _ in any_store.endpoint.methods()] == ["POST", "POST", "PUT", "DELETE"]
    assert [value(bundle, "events-since-subscription-start") for bundle in any_store.endpoint.bundles()] == ["2", "3", "4"]


def test_the_endpoint_is_asked_before_the_subscription_is_active(world: Subscribing) -> None:
    feed = world.served.token()
    id = world.subscribe(feed, by_topic())
    assert world.read(feed, id).json["status"] == "requested" and not world.endpoint.requests
    world.write(lab())
    world.look()
    kinds = [value(bundle, "type") for kind in ("handshake", "event-notification") for bundle in world.endpoint.bundles(kind)]
    assert kinds == ["handshake", "event-notification"], "what happened since it was requested is told, too"
    assert world.read(feed, id).json["status"] == "active"


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
def test_a_notification_has_the_content_that_was_asked_for(world: Subscribing, content: str) -> None:
    feed = world.served.token()
    world.active(feed, by_topic("Observation", content))
    id = world.write(lab())
    world.look()
    (bundle,) = world.endpoint.bundles()
    assert bundle["type"] == "history" and status_of(bundle)["resourceType"] == "Parameters"
    text = world.endpoint.requests[-1].content.decode()
    assert (id in text) == (content != "empty") and ("718-7" in text) == (content == "full-resource")
    assert len(bundle["entry"]) == (1 if content == "empty" else 2)
    if content == "full-resource":
        assert bundle["entry"][1]["resource"] == world.served.get(feed, f"Observation/{id}").json


def test_without_a_choice_the_content_is_empty(world: Subscribing) -> None:
    feed, body = world.served.token(), by_topic()
    del body["channel"]["_payload"]
    world.active(feed, body)
    id = world.write(lab())
    world.look()
    assert len(world.endpoint.bundles()) == 1 and id not in world.endpoint.requests[-1].content.decode()


def test_filters_are_a_search_and_several_hold_together(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.active(feed, by_topic("Observation", "id-only", "Observation?code=718-7", "Observation?patient=teen"))
    met = any_store.write(lab())
    any_store.write(lab(code="2345-7"))
    any_store.write(lab("adult"))
    any_store.look()
    assert any_store.endpoint.events() == [(1, f"Observation/{met}")]
    any_store.served.request(feed, "DELETE", f"Observation/{met}")
    any_store.look()
    assert len(any_store.endpoint.events()) == 1, "whether a deleted resource met the filters is not known"


def test_criteria_of_r4_send_an_empty_message_for_each_change(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.active(feed, by_criteria("Observation?code=718-7"))
    for code in ("718-7", "2345-7", "718-7"):
        any_store.write(lab(code=code))
    any_store.look()
    assert [(method, url, body) for method, url, _, body in any_store.endpoint.told()] == 3 * [("POST", _address(ENDPOINT), b"")]


def test_criteria_of_r4_with_a_payload_put_the_resource(world: Subscribing) -> None:
    feed = world.served.token()
    world.active(feed, by_criteria("Observation", payload="application/fhir+json"))
    id = world.write(lab())
    world.look()
    method, url, headers, body = world.endpoint.told()[-1]
    assert (method, url) == ("PUT", _address(f"{ENDPOINT}/Observation/{id}"))
    assert headers["content-type"] == "application/fhir+json" and body == world.served.get(feed, f"Observation/{id}").body


def test_large_changes_are_told_in_parts_that_follow_each_other(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    any_store.active(feed, by_topic("Observation", "id-only", **_count(3)))
    entries = [{"resource": lab(), "request": {"method": "POST", "url": "Observation"}} for _ in range(8)]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert any_store.served.request(feed, "POST", "", body=bundle).status == 200
    any_store.look()
    assert [number for number, _ in any_store.endpoint.events()] == [*range(1, 9)]
    assert len({name for _, name in any_store.endpoint.events()}) == 8
    assert [len(bundle["entry"]) - 1 for bundle in any_store.endpoint.bundles()] == [3, 3, 2]


def test_heartbeats_come_when_nothing_was_told_for_a_while(world: Subscribing) -> None:
    feed = world.served.token()
    world.active(feed, by_topic("Observation", "empty", **_extension("backport-heartbeat-period", "valueUnsignedInt", 60)))
    world.look(50)
    assert not world.endpoint.bundles("heartbeat")
    world.write(lab())
    world.look(20)
    world.look(50)
    assert not world.endpoint.bundles("heartbeat"), "the notification counts"
    world.look(20)
    (beat,) = world.endpoint.bundles("heartbeat")
    assert value(beat, "events-since-subscription-start") == "1" and len(beat["entry"]) == 1


def _extension(name: str, member: str, number: int) -> dict[str, object]:
    from tests.subscriptions.environment import GUIDE

    return {"extension": [{"url": f"{GUIDE}/{name}", member: number}]}


def _count(number: int) -> dict[str, object]:
    return _extension("backport-max-count", "valuePositiveInt", number)


def _address(url: str) -> str:
    """The connection goes to the address that was checked."""
    return url.replace("app.example", "93.184.216.34")


def test_criteria_may_name_a_parameter_that_the_institution_added(world: Subscribing) -> None:
    served, feed = world.served, world.served.token()
    added = {
        "resourceType": "SearchParameter", "id": "remark", "url": "http://x.example/remark", "name": "X", "status": "active",
        "description": "Notes.", "code": "remark", "base": ["Observation"], "type": "string", "expression": "Observation.note.text",
    }  # fmt: skip
    assert served.request(feed, "PUT", "SearchParameter/remark", body=added).status == 201
    served.run(index_all(served.parts.store, served.parts.labeler, served.settings.base, served.parts.clock))
    world.active(feed, by_topic("Observation", "id-only", "Observation?remark=urgent"))
    met = world.write(lab() | {"note": [{"text": "Urgent, please."}]})
    world.write(lab() | {"note": [{"text": "No hurry."}]})
    world.look()
    assert world.endpoint.events() == [(1, f"Observation/{met}")]
