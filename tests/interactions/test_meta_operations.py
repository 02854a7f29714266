"""$meta, $meta-add and $meta-delete: the only way to remove a label, for those who may set it, and audited."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.resources.validate import check
from tests.interactions.test_restraint import RESTRAINT, act, codes, created, created_for_a_stranger, labelled, update
from tests.served import Answer, Served


@pytest.fixture(scope="module")
def clinician(served: Served) -> str:
    return served.token("demo-public", "user/*.cruds", "clinician")


@pytest.fixture(scope="module")
def adult(served: Served) -> str:
    return served.app_token("adult", "adult")


def change(served: Served, token: str, operation: str, id: str, meta: dict[str, Any], **headers: str) -> Answer:
    body = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}
    return served.request(token, "POST", f"Condition/{id}/{operation}", body=body, headers=headers)


@pytest.mark.parametrize("code", RESTRAINT)
def test_clinician_adds_and_lifts_a_restraint(served: Served, feed: str, clinician: str, adult: str, code: str) -> None:
    id = created(served, clinician)
    added = change(served, clinician, "$meta-add", id, labelled(act(code)))
    assert added.status == 200 and added.json["parameter"][0]["valueMeta"]["security"] == [act(code)]
    assert added.headers["etag"].startswith('W/"2-')
    assert served.get(adult, f"Condition/{id}").status == 404
    assert served.get(clinician, f"Condition/{id}/$meta").json["parameter"][0]["valueMeta"]["security"] == [act(code)]
    lifted = change(served, clinician, "$meta-delete", id, labelled(act(code)))
    assert lifted.status == 200 and "security" not in lifted.json["parameter"][0]["valueMeta"]
    assert served.get(adult, f"Condition/{id}").status == 200
    history = served.get(adult, f"Condition/{id}/_history")
    assert code.encode() not in history.body  # the time of restraint stays hidden
    assert update(served, clinician, id).status == 200  # and an update does not bring it back
    assert served.get(adult, f"Condition/{id}").status == 200


def test_feed_changes_any_label_tag_and_profile(served: Served, feed: str) -> None:
    tag = {"system": "urn:t", "code": "x"}
    id = created(served, feed, meta={"source": "urn:feed"})
    assert change(served, feed, "$meta-add", id, labelled(act("HIV")) | {"tag": [tag], "profile": ["urn:p"]}).status == 200
    assert served.get(feed, f"Condition/{id}").json["meta"]["tag"] == [tag]
    removed = change(served, feed, "$meta-delete", id, labelled(act("HIV"), act("never-set")) | {"profile": ["urn:p"]})
    assert removed.json["parameter"][0]["valueMeta"].keys() == {"versionId", "lastUpdated", "source", "tag"}
    unchanged = change(served, feed, "$meta-delete", id, labelled(act("HIV")))
    assert unchanged.headers["etag"] == removed.headers["etag"]


def test_body_keeps_its_text_when_labels_change(served: Served, feed: str) -> None:
    text = (
        b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/adult"},'
        b'"valueQuantity":{"value":1.50}}'
    )
    id = served.request(feed, "POST", "Observation", body=text).json["id"]
    body = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": labelled(act("PHY"))}]}
    assert served.request(feed, "POST", f"Observation/{id}/$meta-add", body=body).status == 200
    assert b'"value":1.50' in served.get(feed, f"Observation/{id}").body


def test_others_cannot_change_labels(served: Served, feed: str, clinician: str, adult: str) -> None:
    id = created(served, feed, meta=labelled(act("HIV")))
    billing = served.token("demo-public", "user/*.cruds", "billing")
    reading = served.token("demo-public", "user/*.rs", "clinician")
    refused = [(adult, act("PHY")), (billing, act("PHY")), (reading, act("PHY")), (clinician, act("HIV"))]
    for token, label in refused:
        for operation in ("$meta-add", "$meta-delete"):
            answers = [change(served, token, operation, name, labelled(label)) for name in (id, "never-was")]
            assert [answer.status for answer in answers] == [403, 403] and answers[0].body == answers[1].body
    assert change(served, clinician, "$meta-delete", id, labelled(act("PHY")) | {"tag": [act("x")]}).status == 403
    assert codes(served, feed, id) == ["HIV"]
    assert served.request(clinician, "POST", "Patient/adult/$meta-add", body={}).status in (400, 403)


def test_hidden_row_answers_like_an_absent_one(served: Served, feed: str, clinician: str, adult: str) -> None:
    hidden = created_for_a_stranger(served, feed)
    held = created(served, feed, meta=labelled(act("NOPAT")))
    asked = [
        lambda id: change(served, clinician, "$meta-add", id, labelled(act("PHY"))),
        lambda id: change(served, clinician, "$meta-delete", id, labelled(act("PHY")), **{"if-match": 'W/"1"'}),
        lambda id: served.get(clinician, f"Condition/{id}/$meta"),
    ]
    for ask, id in [*((ask, hidden) for ask in asked), (lambda id: served.get(adult, f"Condition/{id}/$meta"), held)]:
        answers = [ask(id), ask("never-was")]
        assert [answer.status for answer in answers] == [404, 404]
        assert answers[0].body.replace(id.encode(), b"never-was") == answers[1].body
        assert answers[0].headers.keys() == answers[1].headers.keys()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"resourceType": "Parameters"}, 400),
        ({"resourceType": "Condition"}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "other", "valueMeta": {"tag": [{"code": "x"}]}}]}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueString": "x"}]}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"source": "urn:x"}}]}, 422),
    ],
    ids=str,
)
def test_malformed_parameters_are_refused(served: Served, feed: str, body: dict[str, Any], status: int) -> None:
    id = created(served, feed)
    assert served.request(feed, "POST", f"Condition/{id}/$meta-add", body=body).status == status


def test_if_match_must_name_the_current_version(served: Served, clinician: str) -> None:
    id = created(served, clinician)
    assert change(served, clinician, "$meta-add", id, labelled(act("PHY")), **{"if-match": 'W/"7"'}).status == 412
    assert change(served, clinician, "$meta-add", id, labelled(act("PHY")), **{"if-match": 'W/"1"'}).status == 200


def test_changes_of_labels_are_audited_with_the_labels(served: Served, clinician: str) -> None:
    id = created(served, clinician)
    for operation in ("$meta-add", "$meta-delete"):
        change(served, clinician, operation, id, labelled(act("TBOO")))
    served.run(served.parts.auditor.flush())
    events = [json.loads(line)["event"] for _, line in served.run(served.parts.store.read_log(LOG_NAME))][-2:]
    assert [event["subtype"][0]["code"] for event in events] == ["add-labels", "remove-labels"]
    for event in events:
        assert check("AuditEvent", event) == ()
        assert event["entity"][0]["what"] == {"reference": f"Condition/{id}"}
        assert event["entity"][0]["detail"] == [{"type": "label", "valueString": f"{act('')['system']}|TBOO"}]


def test_capability_statement_lists_the_operations(served: Served) -> None:
    resources = served.get(None, "metadata").json["rest"][0]["resource"]
    for resource in resources:
        assert {"meta", "meta-add", "meta-delete"} <= {operation["name"] for operation in resource["operation"]}
