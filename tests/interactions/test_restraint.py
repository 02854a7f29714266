"""Security labels in writes: a clinician's restraint hides at once and stays, and nothing that is sent is dropped in silence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served import Answer, Served

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CATEGORY = "https://fhir-server.example/ig/CodeSystem/sensitive-category"
REPORTED = "https://fhir-server.example/ig/CodeSystem/reported-by"
RESTRAINT = ("PHY", "TBOO", "NOPAT")


@pytest.fixture(scope="module")
def clinician(served: Served) -> str:
    return served.token("demo-public", "user/*.cruds", "clinician")


@pytest.fixture(scope="module")
def adult(served: Served) -> str:
    return served.app_token("adult", "adult")


def condition(**more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J06.9"}]}
    return {"resourceType": "Condition", "code": code, "subject": {"reference": "Patient/adult"}, **more}


def act(code: str) -> dict[str, str]:
    return {"system": ACT, "code": code}


def labelled(*codings: dict[str, str]) -> dict[str, Any]:
    return {"security": list(codings)}


def created(served: Served, token: str, **more: Any) -> str:
    answer = served.request(token, "POST", "Condition", body=condition(**more))
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


def created_for_a_stranger(served: Served, feed: str) -> str:
    """A row of a patient who is not under the clinician's care."""
    stranger = {"resourceType": "Patient", "id": "stranger", "birthDate": "1980-01-01"}
    assert served.request(feed, "PUT", "Patient/stranger", body=stranger).status in (200, 201)
    return created(served, feed, subject={"reference": "Patient/stranger"})


def update(served: Served, token: str, id: str, **more: Any) -> Answer:
    return served.request(token, "PUT", f"Condition/{id}", body=condition(id=id, **more))


def codes(served: Served, feed: str, id: str) -> list[str]:
    return [coding["code"] for coding in served.get(feed, f"Condition/{id}").json["meta"].get("security", [])]


@pytest.mark.parametrize("code", RESTRAINT)
def test_restraint_of_a_clinician_hides_at_once_and_stays(served: Served, feed: str, clinician: str, adult: str, code: str) -> None:
    shown = created(served, clinician)
    assert served.get(adult, f"Condition/{shown}").status == 200  # the control: without a label it is shown
    id = created(served, clinician, meta=labelled(act(code)))
    assert served.get(adult, f"Condition/{id}").status == 404
    for token in (clinician, feed):  # an update without meta keeps it
        assert update(served, token, id, note=[{"text": "seen again"}]).status == 200
        assert served.get(adult, f"Condition/{id}").status == 404
    assert served.get(clinician, f"Condition/{id}").json["meta"]["security"] == [act(code)]
    assert served.all_ids(clinician, f"Condition?_id={id}&_security={ACT}|{code}") == [id]


@pytest.mark.parametrize("code", RESTRAINT)
def test_restraint_added_by_an_update_hides_the_history(served: Served, feed: str, clinician: str, adult: str, code: str) -> None:
    id = created(served, clinician)
    assert served.get(adult, f"Condition/{id}").status == 200
    assert update(served, clinician, id, meta=labelled(act(code))).status == 200
    assert served.get(adult, f"Condition/{id}").status == 404
    assert served.get(adult, f"Condition/{id}/_history").status == served.get(adult, f"Condition/{id}/_history/1").status == 404


def test_restraint_survives_delete_and_recreation(served: Served, feed: str, clinician: str, adult: str) -> None:
    id = created(served, clinician, meta=labelled(act("TBOO")))
    assert served.request(feed, "DELETE", f"Condition/{id}").status == 204
    assert update(served, feed, id).status == 201
    assert codes(served, feed, id) == ["TBOO"]
    assert served.get(adult, f"Condition/{id}").status == 404


def test_restraint_works_in_batch_and_transaction(served: Served, clinician: str, adult: str) -> None:
    for kind in ("batch", "transaction"):
        entry = {"resource": condition(meta=labelled(act("NOPAT"))), "request": {"method": "POST", "url": "Condition"}}
        answer = served.request(clinician, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        id = answer.json["entry"][0]["resource"]["id"]
        assert served.get(clinician, f"Condition/{id}").status == 200
        assert served.get(adult, f"Condition/{id}").status == 404


@pytest.mark.parametrize(
    ("meta", "place"),
    [
        (labelled(act("PSYTHPN")), "security[0]"),
        (labelled(act("PHY"), {"system": CATEGORY, "code": "HIV"}), "security[1]"),
        (labelled({"system": "urn:other", "code": "PHY"}), "security[0]"),
        (labelled({"code": "PHY"}), "security[0]"),
        (labelled({"display": "no code"}), "security[0]"),
        (labelled(act("phy")), "security[0]"),
        ({"tag": [{"system": REPORTED, "code": "patient-reported"}]}, "tag[0]"),
        ({"tag": [{"system": "urn:t", "code": "x"}]}, "tag[0]"),
        ({"source": "urn:somebody"}, "source"),
    ],
    ids=str,
)
def test_labels_a_clinician_may_not_send_are_refused(served: Served, clinician: str, meta: dict[str, Any], place: str) -> None:
    id = created(served, clinician)
    for answer in (
        served.request(clinician, "POST", "Condition", body=condition(meta=meta)),
        update(served, clinician, id, meta=meta),
    ):
        assert answer.status == 403
        assert [issue["expression"] for issue in answer.json["issue"]] == [[f"Condition.meta.{place}"]]
    assert served.get(clinician, f"Condition/{id}").json["meta"]["versionId"] == "1"


@pytest.mark.parametrize("code", RESTRAINT)
def test_person_cannot_send_a_restraint(served: Served, adult: str, code: str) -> None:
    message = {"resourceType": "Communication", "status": "completed", "subject": {"reference": "Patient/adult"}}
    assert served.request(adult, "POST", "Communication", body=message).status == 201
    answer = served.request(adult, "POST", "Communication", body=message | {"meta": labelled(act(code))})
    assert (answer.status, answer.json["issue"][0]["expression"]) == (403, ["Communication.meta.security[0]"])


def test_labels_of_hidden_rows_are_refused_like_those_of_absent_ones(served: Served, feed: str, clinician: str) -> None:
    hidden = created_for_a_stranger(served, feed)
    assert served.get(clinician, f"Condition/{hidden}").status == 404
    for meta in ({"profile": ["urn:p"]}, labelled(act("PHY")), labelled(act("HIV"))):
        answers = [update(served, clinician, id, meta=meta) for id in (hidden, "never-was")]
        assert answers[0].status == answers[1].status == 404
        assert answers[0].body.replace(hidden.encode(), b"never-was") == answers[1].body


def test_reading_and_writing_back_is_not_refused(served: Served, feed: str, clinician: str) -> None:
    id = created(served, feed, meta=labelled(act("PHY"), act("HIV")) | {"tag": [{"system": "urn:t", "code": "x"}], "source": "urn:feed"})
    seen = served.get(clinician, f"Condition/{id}").json
    assert seen["meta"].keys() == {"versionId", "lastUpdated", "security"} and seen["meta"]["security"] == [act("PHY")]
    assert served.request(clinician, "PUT", f"Condition/{id}", body=seen).status == 200
    stored = served.get(feed, f"Condition/{id}").json["meta"]
    assert codes(served, feed, id) == ["PHY", "HIV"] and stored["source"] == "urn:feed" and stored["tag"][0]["code"] == "x"


def test_trusted_update_without_meta_keeps_labels_tags_profiles_and_source(served: Served, feed: str, adult: str) -> None:
    meta = labelled(act("NOPAT")) | {"tag": [{"system": "urn:t", "code": "x"}], "profile": ["urn:p"], "source": "urn:feed"}
    id = created(served, feed, meta=meta)
    assert served.get(adult, f"Condition/{id}").status == 404
    assert update(served, feed, id).status == 200
    assert served.get(adult, f"Condition/{id}").status == 404
    kept = served.get(feed, f"Condition/{id}").json["meta"]
    assert {name: kept[name] for name in meta} == meta


def test_trusted_update_merges_labels_tags_and_profiles(served: Served, feed: str) -> None:
    id = created(served, feed, meta=labelled(act("NOPAT")) | {"profile": ["urn:p"], "source": "urn:one"})
    again = labelled(act("HIV"), act("NOPAT") | {"display": "no patient"}) | {"profile": ["urn:q"], "source": "urn:two"}
    assert update(served, feed, id, meta=again).status == 200
    kept = served.get(feed, f"Condition/{id}").json["meta"]
    assert kept["security"] == [act("NOPAT") | {"display": "no patient"}, act("HIV")]
    assert (kept["profile"], kept["source"]) == (["urn:p", "urn:q"], "urn:two")


def test_declassifying_label_holds_for_one_version(served: Served, feed: str) -> None:
    id = created(served, feed, meta=labelled(act("HIV"), act("DECLASSIFYLABEL")))
    assert update(served, feed, id).status == 200
    assert codes(served, feed, id) == ["HIV"]
