"""What a Subscription may ask, what is refused and says so, and how it is read, searched, changed and deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.clock import SECOND, instant_text
from fhir_server.interactions.subscription_records import MAX_SUBSCRIPTIONS
from fhir_server.interactions.subscription_write import MAX_BYTES
from fhir_server.resources.validate import check
from tests.seeded import seeded
from tests.subscriptions.environment import ENDPOINT, GUIDE, TOPIC, Subscribing, by_criteria, by_topic, lab, value

Json = dict[str, Any]


def extension(name: str, **value: Any) -> Json:
    return {"extension": [{"url": f"{GUIDE}/{name}", **value}]}


REFUSED: dict[str, tuple[Json, str]] = {
    "e-mail": (by_criteria("Observation", type="email", endpoint="mailto:a@b.example"), "Subscription.channel.type"),
    "text message": (by_criteria("Observation", type="sms"), "Subscription.channel.type"),
    "endpoint of a websocket": (by_topic() | {"channel": {"type": "websocket", "endpoint": ENDPOINT}}, "Subscription.channel.endpoint"),
    "headers of a websocket": (by_topic() | {"channel": {"type": "websocket", "header": ["X-A: hush"]}}, "Subscription.channel.header"),
    "payload of r4's websocket": (
        by_criteria("Observation") | {"channel": {"type": "websocket", "payload": "application/fhir+json"}}, "Subscription.channel.payload"
    ),
    "message": (by_topic(type="Observation", content="empty") | {"channel": {"type": "message"}}, "Subscription.channel.type"),
    "no endpoint": ({**by_criteria("Observation"), "channel": {"type": "rest-hook"}}, "Subscription.channel.endpoint"),
    "plain http": (by_criteria("Observation", endpoint="http://app.example/"), "Subscription.channel.endpoint"),
    "another scheme": (by_criteria("Observation", endpoint="ftp://app.example/"), "Subscription.channel.endpoint"),
    "credentials": (by_criteria("Observation", endpoint="https://a:b@app.example/"), "Subscription.channel.endpoint"),
    "xml": (by_criteria("Observation", payload="application/fhir+xml"), "Subscription.channel.payload"),
    "unknown topic": (by_topic() | {"criteria": f"{TOPIC}/Slot"}, "Subscription.criteria"),
    "unknown type": (by_criteria("Nope?x=1"), "Subscription.criteria"),
    "audit events": (by_criteria("AuditEvent?action=R"), "Subscription.criteria"),
    "subscriptions": (by_criteria("Subscription"), "Subscription.criteria"),
    "no parameters": (by_criteria("Observation?"), "Subscription.criteria"),
    "not encoded": (by_criteria("Observation?code=ä"), "Subscription.criteria"),
    "filter of criteria": (
        by_criteria("Observation") | {"_criteria": extension("backport-filter-criteria", valueString="Observation?code=1")},
        "Subscription.criteria.extension",
    ),
    "filter of another type": (by_topic("Observation", "empty", "Patient?name=x"), "Subscription.criteria.extension"),
    "filter without type": (by_topic("Observation", "empty", "code=1"), "Subscription.criteria.extension"),
    "heartbeat of criteria": (
        by_criteria("Observation", **extension("backport-heartbeat-period", valueUnsignedInt=60)), "Subscription.channel.extension"
    ),
    "heartbeat too often": (
        by_topic("Observation", "empty", **extension("backport-heartbeat-period", valueUnsignedInt=1)), "Subscription.channel.extension"
    ),
    "timeout too long": (
        by_topic("Observation", "empty", **extension("backport-timeout", valueUnsignedInt=600)), "Subscription.channel.extension"
    ),
    "too many at once": (
        by_topic("Observation", "empty", **extension("backport-max-count", valuePositiveInt=1000)), "Subscription.channel.extension"
    ),
    "unknown content": (by_topic("Observation", "some"), "Subscription.channel.payload.extension"),
    "another extension of the guide": (
        by_topic("Observation", "empty", **extension("backport-additional-criteria", valueString="x")), "Subscription.channel.extension"
    ),
    "another channel type": (
        by_topic("Observation", "empty", _type=extension("backport-channel-type", valueCoding={"code": "zulip"})),
        "Subscription.channel.type.extension",
    ),
    "modifier": (by_topic() | {"modifierExtension": [{"url": "urn:x", "valueString": "y"}]}, "Subscription.modifierExtension"),
    "contained": (by_topic() | {"contained": [{"resourceType": "Basic", "id": "a", "code": {"text": "x"}}]}, "Subscription.contained"),
    "header without name": (by_criteria("Observation", header=["hush"]), "Subscription.channel.header"),
    "header of HTTP": (by_criteria("Observation", header=["Host: other.example"]), "Subscription.channel.header"),
    "header in two lines": (by_criteria("Observation", header=["X-A: b\r\nX-C: d"]), "Subscription.channel.header"),
    "header twice": (by_criteria("Observation", header=["X-A: b", "x-a: c"]), "Subscription.channel.header"),
    "active": (by_topic() | {"status": "active"}, "Subscription.status"),
    "off": (by_topic() | {"status": "off"}, "Subscription.status"),
    "over": (by_topic() | {"end": "2026-11-21T11:00:00-05:00"}, "Subscription.end"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Any:
    server = seeded()
    yield Subscribing(server)
    server.close()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_with_its_place(shared: Subscribing, name: str) -> None:
    body, place = REFUSED[name]
    answer = shared.served.request(shared.served.token(), "POST", "Subscription", body=body)
    assert answer.status in (400, 422), answer.body
    issue = answer.json["issue"][0]
    assert (issue["expression"] == [place] and issue["diagnostics"]) or answer.status == 400, issue
    assert "hush" not in answer.body.decode() and shared.served.get(shared.served.token(), "Subscription").json["total"] == 0


def test_criteria_that_are_no_search_are_refused_by_name(shared: Subscribing) -> None:
    for criteria, text in (
        ("Observation?cod=1", "no search parameter 'cod'"),
        ("Observation?date=yesterday", "date"),
        ("Observation?_count=1", "_count"),
    ):
        answer = shared.served.request(shared.served.token(), "POST", "Subscription", body=by_criteria(criteria))
        assert answer.status == 400 and text in answer.body.decode(), answer.body


def test_a_subscription_is_read_as_it_was_sent(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    body = by_topic() | {"contact": [{"system": "phone", "value": "1"}]}
    id = any_store.subscribe(feed, body)
    answer = any_store.read(feed, id)
    found = answer.json
    assert {name: found[name] for name in body} == body and found["meta"]["versionId"] == "1" and check("Subscription", found) == ()
    assert answer.headers["etag"] == 'W/"1"'
    assert any_store.served.get(feed, f"Subscription/{id}", **{"if-none-match": 'W/"1"'}).status == 304
    any_store.look()
    assert any_store.read(feed, id).json["meta"]["versionId"] == "2", "it is active now"


def test_search_parameters_of_r4_find_subscriptions(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    one = any_store.active(feed, by_criteria("Observation?code=718-7"))
    two = any_store.subscribe(feed, by_topic("Patient"))
    for query, ids in (
        ("", {one, two}),
        ("status=active", {one}),
        ("criteria=Observation", {one}),
        ("payload=application/fhir%2Bjson", {two}),
        (f"_id={two}", {two}),
        ("type=rest-hook", {one, two}),
        ("url=https://app.example/hook", {one, two}),
        ("status:not=active", {two}),
    ):
        answer = any_store.served.get(feed, f"Subscription?{query}")
        assert set(answer.ids()) == ids and answer.json["total"] == len(ids), query
    assert any_store.served.all_ids(feed, "Subscription?_count=1&_sort=status") == [one, two]
    assert any_store.served.get(feed, "Subscription?_summary=count").json["total"] == 2
    assert any_store.served.get(feed, "Subscription?_has:Provenance:target:agent=x").status == 400


def test_an_update_asks_the_endpoint_again_and_keeps_what_it_does_not_send(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.active(feed, by_topic(header=["X-Key: hush"]))
    read = any_store.read(feed, id)
    put: Callable[..., Any] = lambda body, **headers: any_store.served.request(  # noqa: E731
        feed, "PUT", f"Subscription/{id}", body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    assert put(read.json, if_match='W/"1"').status == 412
    assert put(read.json, if_match=read.headers["etag"]).json["status"] == "requested"
    any_store.look()
    assert any_store.endpoint.requests[-1].headers["x-key"] == "hush" and len(any_store.endpoint.bundles("handshake")) == 2
    moved = any_store.read(feed, id).json
    moved["channel"]["endpoint"] = "https://other.example/"
    assert put(moved).status == 200
    any_store.look()
    assert "x-key" not in any_store.endpoint.requests[-1].headers, "a secret goes to the endpoint that it was given for"
    assert put(moved | {"id": "other"}).status == 400


def test_it_is_not_written_otherwise(shared: Subscribing) -> None:
    served, feed = shared.served, shared.served.token()
    patch = {"content-type": "application/json-patch+json"}
    assert served.request(feed, "PATCH", "Subscription/x", body=b"[]", headers=patch).status == 400
    for method in ("PUT", "DELETE", "PATCH"):
        assert served.request(feed, method, "Subscription?status=off", body=None if method == "DELETE" else by_topic()).status == 400
    for kind in ("batch", "transaction"):
        entry = {"resource": by_topic(), "request": {"method": "POST", "url": "Subscription"}}
        answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        status = answer.json["entry"][0]["response"]["status"] if kind == "batch" else str(answer.status)
        assert status == "400", answer.body
    for headers in ({"if-none-exist": "status=off"}, {"x-provenance": "{}"}):
        assert served.request(feed, "POST", "Subscription", body=by_topic(), headers=headers).status == 400
    assert served.request(feed, "POST", "Subscription?status=off", body=by_topic()).status == 400
    assert served.get(feed, "Subscription").json["total"] == 0


def test_a_file_does_not_make_a_subscription(shared: Subscribing, tmp_path: Any) -> None:
    import json

    file = tmp_path / "one.ndjson"
    file.write_text(json.dumps(by_topic() | {"id": "from-a-file"}))
    report = shared.served.load(file)
    assert report.stored == 0 and b"made by its subscriber" in report.rejects[0]


def test_an_owner_has_so_many_at_a_time(world: Subscribing) -> None:
    adult = world.served.app_token("adult", "adult")
    ids = [world.subscribe(adult, by_topic()) for _ in range(MAX_SUBSCRIPTIONS)]
    world.subscribe(adult, by_topic(), 429)
    assert world.served.request(adult, "DELETE", f"Subscription/{ids[3]}").status == 204
    world.subscribe(adult, by_topic())
    world.subscribe(world.served.app_token("parent-a", "teen"), by_topic())


def test_status_says_how_far_it_is(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    id = any_store.active(feed, by_topic())
    any_store.write(lab())
    any_store.look()
    any_store.subscribe(feed, by_topic("Patient"))
    answer = any_store.served.get(feed, f"Subscription/{id}/$status").json
    assert answer["type"] == "searchset" and check("Parameters", answer["entry"][0]["resource"]) == ()
    assert (value(answer, "status"), value(answer, "type"), value(answer, "events-since-subscription-start")) == (
        "active",
        "query-status",
        "1",
    )
    assert value(answer, "topic") == f"{TOPIC}/Observation"
    assert any_store.served.get(feed, "Subscription/$status").json["total"] == 2
    assert any_store.served.get(feed, f"Subscription/$status?id={id}").json["total"] == 1
    assert any_store.served.get(feed, "Subscription/$status?status=requested").json["total"] == 1
    asked = {"resourceType": "Parameters", "parameter": [{"name": "id", "valueId": id}]}
    assert any_store.served.request(feed, "POST", "Subscription/$status", body=asked).json["total"] == 1


def test_events_can_be_asked_for_again_as_far_as_they_are_visible(any_store: Subscribing) -> None:
    served, feed = any_store.served, any_store.served.token()
    parent = served.app_token("parent-a", "teen")
    id = any_store.active(parent, by_topic("Observation", "id-only"))
    names = []
    for _ in range(4):
        names.append(any_store.write(lab()))
        any_store.look()

    def events(query: str = "") -> list[str]:
        entries = served.get(parent, f"Subscription/{id}/$events{query}").json["entry"][1:]
        return [entry["fullUrl"].rpartition("/")[2] for entry in entries]

    assert events() == names
    assert events("?eventsSinceNumber=2&eventsUntilNumber=3") == names[1:3]
    full = served.get(parent, f"Subscription/{id}/$events?content=full-resource&eventsSinceNumber=4").json["entry"]
    assert full[1]["resource"] == served.get(parent, f"Observation/{names[3]}").json
    hiv = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    assert served.request(feed, "PUT", f"Observation/{names[1]}", body=lab() | {"id": names[1], "meta": hiv}).status == 200
    assert events() == [names[0], *names[2:]]
    assert served.get(parent, f"Subscription/{id}/$events?content=some").status == 400
    assert served.get(parent, f"Subscription/{id}/$events?nope=1").status == 400


def test_the_capability_statement_says_what_there_is(shared: Subscribing) -> None:
    rest = shared.served.get(None, "metadata").json["rest"][0]
    resources = rest["resource"]
    assert [one["valueUri"] for one in rest["extension"]] == ["ws://127.0.0.1:8000/websocket"]
    (found,) = [resource for resource in resources if resource["type"] == "Subscription"]
    assert {one["code"] for one in found["interaction"]} == {"read", "create", "update", "delete", "search-type"}
    topics = {one["valueCanonical"].rpartition("/")[2] for one in found["extension"]}
    assert topics == {"Patient", "Observation", "MedicationStatement", "Appointment", "Account", "RelatedPerson"}
    assert {one["name"] for one in found["operation"]} >= {"status", "events", "get-ws-binding-token"}
    assert "conditionalUpdate" not in found and found["versioning"] == "no-version"


def test_status_of_all_leaves_out_what_the_scope_does_not_cover(world: Subscribing) -> None:
    adult = world.served.app_token("adult", "adult")
    id = world.active(adult, by_topic())
    world.subscribe(adult, by_topic("Patient"))
    active = world.served.app_token("adult", "adult", "patient/Subscription.rs?status=active")
    answer = world.served.get(active, "Subscription/$status")
    assert answer.status == 200 and answer.json["total"] == 1 and id in answer.body.decode()


def test_the_place_of_one_that_is_over_is_free_when_it_is_gone(any_store: Subscribing) -> None:
    feed = any_store.served.token()
    end = instant_text(any_store.served.parts.clock() + 60 * SECOND)
    ids = [any_store.subscribe(feed, by_topic() | {"end": end}) for _ in range(MAX_SUBSCRIPTIONS)]
    for _ in range(1 + MAX_SUBSCRIPTIONS // 4):
        any_store.look(120)
    assert any_store.counts == {"off": MAX_SUBSCRIPTIONS}
    any_store.subscribe(any_store.served.token(), by_topic(), 429)
    any_store.served.at(any_store.served.parts.clock() + 31 * 24 * 3600 * SECOND)
    assert any_store.read(any_store.served.token(), ids[0]).status == 404
    any_store.subscribe(any_store.served.token(), by_topic())


def test_a_subscription_is_small_because_each_process_holds_all_of_them(shared: Subscribing) -> None:
    large = by_topic() | {"reason": MAX_BYTES * "x"}
    for method, path in (("POST", "Subscription"), ("PUT", "Subscription/a")):
        answer = shared.served.request(shared.served.token(), method, path, body=large | {"id": "a"})
        assert answer.status == 413 and "64 KiB" in answer.body.decode()
