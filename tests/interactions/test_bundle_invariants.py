"""R4's rules for a Bundle are checked before any of its entries is processed (http://hl7.org/fhir/R4/bundle.html#invs)."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.resources import fhirpath
from fhir_server.resources.invariants import BY_HAND
from tests.resources.test_invariants import ALL
from tests.served import Served

EHR = "http://ehr.example/fhir"
PATIENT = {"resourceType": "Patient", "active": True}
POST = {"request": {"method": "POST", "url": "Patient"}, "resource": PATIENT}
NAMED = POST | {"fullUrl": f"{EHR}/Patient/1"}

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a total": ({"total": 1}, "bdl-1"),
    "a search mode": ({"entry": [POST, POST | {"search": {"mode": "match"}}]}, "bdl-2"),
    "an entry without a request": ({"entry": [POST, {"resource": PATIENT}]}, "bdl-3"),
    "an entry with a response": ({"entry": [POST, POST | {"response": {"status": "200"}}]}, "bdl-4"),
    "an empty entry": ({"entry": [POST, {}]}, "may not be empty"),
    "one fullUrl twice": ({"entry": [NAMED, NAMED]}, "bdl-7"),
    "a fullUrl of a version": ({"entry": [POST | {"fullUrl": f"{EHR}/Patient/1/_history/2"}]}, "bdl-8"),
    "an unknown method": ({"entry": [POST, {"request": {"method": "PURGE", "url": "Patient/1"}}]}, "not one of the codes"),
    "no method": ({"entry": [POST, {"request": {"url": "Patient/1"}}]}, "'method' is required"),
    "no url": ({"entry": [POST, {"request": {"method": "GET"}}]}, "'url' is required"),
    "a url with a blank": ({"entry": [POST, {"request": {"method": "GET", "url": "Patient?name=a b"}}]}, "not a valid uri"),
    "no instant": ({"entry": [POST, {"request": {"method": "GET", "url": "Patient/1", "ifModifiedSince": "2026"}}]}, "not a valid instant"),
    "a condition that is no text": (
        {"entry": [POST, {"request": {"method": "GET", "url": "Patient/1", "ifMatch": 1}}]},
        "Expected a string",
    ),
    "an unknown element": ({"entry": [POST], "colour": "red"}, "not an element"),
    "an entry that is no object": ({"entry": [POST, None]}, "Expected an object"),
    "a resource that is no object": ({"entry": [POST, POST | {"resource": "Patient"}]}, "object"),
}


def patients(served: Served, feed: str) -> int:
    return int(served.get(feed, "Patient?_summary=count").json["total"])


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("broken", BROKEN)
def test_bundle_that_breaks_a_rule_is_refused_before_its_entries(served: Served, feed: str, broken: str, kind: str) -> None:
    change, said = BROKEN[broken]
    before = patients(served, feed)
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [POST], **change})
    assert answer.status == 400 and said in answer.json["issue"][0]["diagnostics"]
    assert patients(served, feed) == before
    good = {"resourceType": "Bundle", "type": kind, "entry": [POST, NAMED]}
    assert served.request(feed, "POST", "", body=good).status == 200  # the control
    assert patients(served, feed) == before + 2


@pytest.mark.parametrize(
    "type", ["document", "message", "transaction-response", "batch-response", "history", "searchset", "collection", "", "Batch", None, 1]
)
def test_only_batches_and_transactions_are_processed(served: Served, feed: str, type: Any) -> None:
    before = patients(served, feed)
    assert served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": type, "entry": [POST]}).status == 400
    assert patients(served, feed) == before


def test_a_batch_refuses_only_the_entries_whose_resource_is_wrong(served: Served, feed: str) -> None:
    wrong = POST | {"resource": PATIENT | {"active": "yes"}}
    answer = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": [POST, wrong]})
    assert [entry["response"]["status"] for entry in answer.json["entry"]] == ["201", "400"]
    whole = served.request(feed, "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [POST, wrong]})
    assert whole.status == 400


@pytest.mark.parametrize("key", ["bdl-3", "bdl-4", "bdl-5", "bdl-7", "bdl-8"])
def test_rules_written_by_hand_agree_with_hl7s_expressions(key: str) -> None:
    part = {"bdl-5", "bdl-8"}  # of an entry; the others are of the Bundle
    compiled = fhirpath.predicate(next(one.expression for _, one in ALL.values() if one.key == key))
    versions = [NAMED | {"resource": PATIENT | {"meta": {"versionId": str(n)}}} for n in (1, 2)]
    entries = [
        [POST],
        [NAMED, NAMED],
        versions,
        [versions[0], versions[0]],
        [NAMED, POST | {"response": {"status": "200"}}],
        [{"fullUrl": "a/_history/1"}],
        [{"response": {}}],
    ]
    answers = set()
    for type in ("batch", "transaction", "history", "batch-response", "collection"):
        for listed in entries:
            bundle = {"resourceType": "Bundle", "type": type, "entry": listed}
            for node in listed if key in part else [bundle]:
                answers.add(BY_HAND[key](node, bundle, bundle))
                assert BY_HAND[key](node, bundle, bundle) == compiled(node, bundle, bundle), (key, node)
    assert answers == {True, False}
