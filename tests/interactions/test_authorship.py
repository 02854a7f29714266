"""A write by a person's app is that person's statement: it names nobody else, is marked, and is no laboratory result."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_server.resources import authors, catalog, definitions
from tests.served import Answer, Served

REPORTED = "https://fhir-server.example/ig/CodeSystem/reported-by"
ERROR = {"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification", "code": "entered-in-error"}
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ME = {"adult": "Patient/adult", "parent-a": "RelatedPerson/parent-a-of-child", "proxy-full": "RelatedPerson/proxy-full-of-adult"}
RECORD = {"adult": "adult", "parent-a": "child", "proxy-full": "adult"}


def ref(reference: str, **more: Any) -> dict[str, Any]:
    return {"reference": reference, **more}


def message(user: str, **more: Any) -> dict[str, Any]:
    subject = ref(f"Patient/{RECORD[user]}")
    return {"resourceType": "Communication", "status": "completed", "subject": subject, "payload": [{"contentString": "Hello"}], **more}


def reading(user: str, category: str = "vital-signs", code: str = "8867-4", **more: Any) -> dict[str, Any]:
    concept = {"coding": [{"system": CATEGORY, "code": category}]}
    loinc = {"coding": [{"system": "http://loinc.org", "code": code}]}
    subject = ref(f"Patient/{RECORD[user]}")
    return {"resourceType": "Observation", "status": "final", "category": [concept], "code": loinc, "subject": subject, **more}


def vaccine(user: str, **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/cvx", "code": "140"}]}
    patient = ref(f"Patient/{RECORD[user]}")
    return {
        "resourceType": "Immunization",
        "status": "completed",
        "vaccineCode": code,
        "patient": patient,
        "occurrenceDateTime": "2026-10-01",
        **more,
    }


def app(served: Served, user: str) -> str:
    return served.app_token(user, RECORD[user])


def post(served: Served, user: str, body: dict[str, Any]) -> Answer:
    return served.request(app(served, user), "POST", body["resourceType"], body=body)


def in_bundle(served: Served, token: str, kind: str, body: dict[str, Any], **request: str) -> tuple[int, dict[str, Any]]:
    """The status and OperationOutcome of a Bundle's only entry."""
    entry = {"resource": body, "request": {"method": "POST", "url": body["resourceType"]} | request}
    answer = served.request(token, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})
    if kind == "transaction" or answer.status != 200:
        return answer.status, answer.json
    response = answer.json["entry"][0]["response"]
    return int(response["status"]), response.get("outcome", {})


@pytest.mark.parametrize("user", ["adult", "parent-a"])
def test_app_without_scopes_to_read_people_writes_what_its_person_says(served: Served, user: str) -> None:
    """The server itself names the person, whatever the app may read."""
    token = served.app_token(user, RECORD[user], "patient/Observation.c")
    answer = served.request(token, "POST", "Observation", body=reading(user))
    assert answer.status == 201, answer.body
    stored = served.get(served.token(), f"Observation/{answer.headers['location'].split('/')[-3]}").json
    assert [one["reference"] for one in stored["performer"]] == [ME[user]]
    hidden = reading(user, performer=[ref(ME[user])], encounter=ref("Encounter/adult-annual-visit"))
    assert served.request(token, "POST", "Observation", body=hidden).status == 422  # the control: what the app may not see


def test_app_without_scopes_to_read_people_signs_for_its_clinician(served: Served) -> None:
    token = served.token("demo-confidential", "user/Observation.c", "clinician")
    signed = reading("adult", performer=[ref("Practitioner/dr-rivera")])
    assert served.request(token, "POST", "Observation", body=signed).status == 201
    other = signed | {"encounter": ref("Encounter/adult-annual-visit")}
    assert served.request(token, "POST", "Observation", body=other).status == 422


OTHERS = [
    ref("Practitioner/dr-rivera"),
    ref("Practitioner/dr-rivera", display="Dr. Rivera"),
    ref("Patient/child"),  # of a parent: the child; of an adult: somebody else
    ref("RelatedPerson/parent-b-of-child"),
    ref("Organization/demo-health"),
    ref("#doctor"),
    ref("https://elsewhere.example/fhir/Practitioner/dr-rivera"),
    {"identifier": {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1"}},
    {"display": "Dr. Rivera"},
    {"type": "Practitioner"},
]


@pytest.mark.parametrize("user", ["adult", "parent-a"])
@pytest.mark.parametrize("other", OTHERS, ids=json.dumps)
def test_person_cannot_speak_for_anybody_else(served: Served, user: str, other: dict[str, Any]) -> None:
    contained = (
        [{"resourceType": "Practitioner", "id": "doctor", "name": [{"family": "Rivera"}]}] if other.get("reference") == "#doctor" else []
    )
    more = {"contained": contained} if contained else {}
    for body, place in (
        (message(user, sender=other, **more), "Communication.sender"),
        (reading(user, performer=[ref(ME[user]), other], **more), "Observation.performer[1]"),
        (message(user, note=[{"text": "x", "authorReference": other}], **more), "Communication.note[0].authorReference"),
    ):
        for status, outcome in (
            (answer := post(served, user, body)) and (answer.status, answer.json),
            in_bundle(served, app(served, user), "batch", body),
            in_bundle(served, app(served, user), "transaction", body),
        ):
            assert (status, outcome["issue"][0]["expression"]) == (403, [place])


@pytest.mark.parametrize(
    ("user", "more", "place"),
    [
        ("adult", {"sender": ref("Patient/adult", display="Dr. Rivera")}, "sender"),
        ("adult", {"sender": ref("Patient/adult", type="Practitioner")}, "sender"),
        ("adult", {"sender": ref("Patient/adult", identifier={"value": "dr-rivera"})}, "sender"),
        ("adult", {"sender": ref("Device/thermometer")}, "sender"),
        ("proxy-full", {"sender": ref("Patient/adult")}, "sender"),
        ("adult", {"note": [{"text": "Stop the metformin", "authorString": "Dr. Rivera"}]}, "note[0].authorString"),
        ("adult", {"extension": [{"url": "urn:by", "valueReference": ref("Practitioner/dr-rivera")}]}, "extension[0].valueReference"),
        ("adult", {"extension": [{"url": "urn:by", "valueReference": {"display": "Dr. Rivera"}}]}, "extension[0].valueReference"),
        (
            "adult",
            {"contained": [{"resourceType": "Provenance", "id": "p", "target": [ref("#")], "recorded": "2026-11-21T12:00:00Z",
                            "agent": [{"who": ref("Practitioner/dr-rivera")}]}]},
            "contained[0].agent[0].who",
        ),
        (
            "adult",
            {"contained": [{"resourceType": "Communication", "id": "c", "status": "completed", "sender": ref("Practitioner/dr-rivera")}],
             "about": [ref("#c")]},
            "contained[0].sender",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_false_author_is_found_wherever_it_stands(served: Served, user: str, more: dict[str, Any], place: str) -> None:
    answer = post(served, user, message(user, **more))
    assert (answer.status, answer.json["issue"][0]["expression"]) == (403, [f"Communication.{place}"])


@pytest.mark.parametrize("user", ["adult", "parent-a", "proxy-full"])
def test_server_names_the_person_where_the_app_does_not(served: Served, feed: str, user: str) -> None:
    sent = post(served, user, message(user))
    assert sent.status == 201 and sent.json["sender"] == ref(ME[user])
    assert sent.json["id"] in served.all_ids(app(served, user), "Communication?_count=200")  # the sender sees the own message
    given = post(served, user, message(user, sender=ref(f"{ME[user]}/_history/1")))
    assert given.status == 201


def test_text_of_a_statement_stays_as_received(served: Served, feed: str) -> None:
    text = json.dumps(reading("adult"))[:-1].encode() + b',"valueQuantity":{"value":61.50,"unit":"/min"}}'
    answer = served.request(app(served, "adult"), "POST", "Observation", body=text)
    assert answer.status == 201 and answer.json["performer"] == [ref("Patient/adult")]
    assert b'"value":61.50' in served.get(feed, f"Observation/{answer.json['id']}").body


def test_own_name_may_stand_beside_the_reference(served: Served) -> None:
    assert post(served, "adult", message("adult", sender=ref("Patient/adult", display="Alex Adult", type="Patient"))).status == 201


@pytest.mark.parametrize(
    ("user", "code"), [("adult", "patient-reported"), ("parent-a", "proxy-reported"), ("proxy-full", "proxy-reported")]
)
def test_every_reader_can_tell_a_persons_statement(served: Served, feed: str, user: str, code: str) -> None:
    body = message(user, recipient=[ref(f"Patient/{RECORD[user]}")]) if user == "proxy-full" else reading(user)
    name = f"{body['resourceType']}/{post(served, user, body).json['id']}"
    clinician = served.token("demo-public", "user/*.rs", "clinician")
    others = {"adult": [("proxy-full", "adult")], "parent-a": [("parent-b", "child")], "proxy-full": [("adult", "adult")]}[user]
    readers = [app(served, user), clinician, feed, *(served.app_token(*other) for other in others)]
    for reader in readers:
        tags = served.get(reader, name).json["meta"]["tag"]
        assert tags == [{"system": REPORTED, "code": code}]
        assert served.all_ids(reader, f"{body['resourceType']}?_id={name.partition('/')[2]}&_tag={REPORTED}|{code}")
    assert "source" not in served.get(clinician, name).json["meta"]
    assert served.get(feed, name).json["meta"]["source"] == "urn:smart-app:demo-public"


@pytest.mark.parametrize("kind", ["single", "batch", "transaction"])
def test_provenance_names_the_person_the_patient_and_the_app(served: Served, feed: str, kind: str) -> None:
    token, body = app(served, "parent-a"), reading("parent-a", note=[{"text": kind}])
    if kind == "single":
        id = served.request(token, "POST", "Observation", body=body).json["id"]
    else:
        entry = {"resource": body, "request": {"method": "POST", "url": "Observation"}}
        answer = served.request(token, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]})
        id = answer.json["entry"][0]["resource"]["id"]
    for reader in (feed, token):
        found = served.get(reader, f"Provenance?target=Observation/{id}").json["entry"]
        assert len(found) == 1
        agents = found[0]["resource"]["agent"]
        assert agents[0]["who"] == ref("RelatedPerson/parent-a-of-child") and agents[0]["onBehalfOf"] == ref("Patient/child")
        assert agents[1]["who"] == ref("Patient/child")
        assert agents[2]["who"]["identifier"]["value"] == "demo-public"
    other = served.app_token("parent-b", "child")
    assert served.get(other, f"Provenance?target=Observation/{id}").ids() == []  # it is not about what parent B did


@pytest.mark.parametrize(
    "changes",
    [
        {"category": "laboratory", "code": "718-7"},
        {"category": "imaging"},
        {"category": "vital-signs", "code": "718-7"},  # hemoglobin under another name
        {"category": "survey", "code": "56888-1"},  # an HIV test
        {"category": "vital-signs", "specimen": ref("Specimen/none")},
        {"category": "vital-signs", "component": [{"code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("user", ["adult", "parent-a"])
def test_person_cannot_report_a_laboratory_result(served: Served, user: str, changes: dict[str, Any]) -> None:
    answer = post(served, user, reading(user, **changes))
    assert answer.status == 403 and answer.json["issue"][0]["expression"][0] in ("Observation.category", "Observation.code")
    assert post(served, user, reading(user)).status == 201


def test_observation_of_a_person_needs_a_category_that_policy_lists(served: Served) -> None:
    both = reading("adult")["category"] + [{"coding": [{"system": CATEGORY, "code": "laboratory"}]}]
    for category in (None, both, [{"text": "vital-signs"}], [{"coding": [{"system": CATEGORY, "code": "therapy"}]}]):
        body = reading("adult") | {"category": category}
        assert post(served, "adult", {name: value for name, value in body.items() if value is not None}).status == 403
    for category in ("vital-signs", "social-history", "survey", "activity"):
        assert post(served, "adult", reading("adult", category)).status == 201


def test_vaccine_given_elsewhere_is_reported_as_told(served: Served) -> None:
    answer = post(served, "adult", vaccine("adult"))
    assert answer.status == 201 and answer.json["primarySource"] is False
    assert answer.json["reportOrigin"]["coding"][0]["code"] == "recall"
    assert post(served, "adult", vaccine("adult", primarySource=True)).status == 403
    assert post(served, "adult", vaccine("adult", performer=[{"actor": ref("Practitioner/dr-rivera")}])).status == 403


@pytest.mark.parametrize(
    ("type", "element"),
    [("Condition", "recorder"), ("Condition", "asserter"), ("DocumentReference", "author"), ("Communication", "sender"),
     ("QuestionnaireResponse", "author"), ("AllergyIntolerance", "recorder")],
)  # fmt: skip
def test_clinician_signs_with_the_own_name(served: Served, feed: str, type: str, element: str) -> None:
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    bodies: dict[str, dict[str, Any]] = {
        "Condition": {"subject": ref("Patient/adult"), "code": {"text": "cough"}},
        "DocumentReference": {"status": "current", "subject": ref("Patient/adult"), "content": [{"attachment": {"title": "x"}}]},
        "Communication": {"status": "completed", "subject": ref("Patient/adult")},
        "QuestionnaireResponse": {"status": "completed", "subject": ref("Patient/adult")},
        "AllergyIntolerance": {"patient": ref("Patient/adult"), "verificationStatus": {"coding": [ERROR]}},
    }
    body = {"resourceType": type} | bodies[type]

    def signed(by: dict[str, Any]) -> dict[str, Any]:
        return body | {element: [by] if (type, element) == ("DocumentReference", "author") else by}

    other = "Practitioner/dr-other"
    served.request(feed, "PUT", other, body={"resourceType": "Practitioner", "id": "dr-other"})
    assert served.request(clinician, "POST", type, body=signed(ref("Practitioner/dr-rivera"))).status == 201
    assert served.request(clinician, "POST", type, body=body).status == 201
    for false in (ref(other), {"display": "Dr. Other"}, ref("https://elsewhere.example/Practitioner/1")):
        answer = served.request(clinician, "POST", type, body=signed(false))
        assert answer.status == 403 and answer.json["issue"][0]["expression"][0].startswith(f"{type}.{element}")
    role = {"resourceType": "PractitionerRole", "id": "of-rivera", "practitioner": ref("Practitioner/dr-rivera")}
    theirs = role | {"id": "of-other", "practitioner": ref(other)}
    for each in (role, theirs):
        served.request(feed, "PUT", f"PractitionerRole/{each['id']}", body=each)
    assert served.request(clinician, "POST", type, body=signed(ref("PractitionerRole/of-rivera"))).status == 201
    assert served.request(clinician, "POST", type, body=signed(ref("PractitionerRole/of-other"))).status == 403
    # What another clinician signed keeps that name when this one changes it.
    id = served.request(feed, "POST", type, body=signed(ref(other))).json["id"]
    assert served.request(clinician, "PUT", f"{type}/{id}", body=signed(ref(other)) | {"id": id, "language": "en"}).status == 200


def test_clinician_may_name_others_who_act(served: Served, feed: str) -> None:
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    served.request(feed, "PUT", "Practitioner/dr-other", body={"resourceType": "Practitioner", "id": "dr-other"})
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": ref("Patient/adult"),
             "code": {"text": "x"}, "requester": ref("Practitioner/dr-other"), "performer": [ref("Practitioner/dr-other")]}  # fmt: skip
    assert served.request(clinician, "POST", "ServiceRequest", body=order).status == 201


def test_staff_cannot_change_what_a_person_reported(served: Served) -> None:
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    id = post(served, "adult", reading("adult", valueString="calm")).json["id"]
    shown = served.get(clinician, f"Observation/{id}").json
    changed = served.request(clinician, "PUT", f"Observation/{id}", body=shown | {"valueString": "agitated"})
    assert (changed.status, changed.json["issue"][0]["expression"]) == (403, ["Observation.valueString"])
    marked = served.request(clinician, "PUT", f"Observation/{id}", body=shown | {"status": "entered-in-error"})
    assert marked.status == 200 and marked.json["meta"]["tag"] == shown["meta"]["tag"]


def test_feed_names_whom_it_wants(served: Served, feed: str) -> None:
    for body in (
        message("adult", sender=ref("Practitioner/dr-rivera")),
        reading("adult", "laboratory", "718-7", performer=[ref("Practitioner/dr-rivera")]),
    ):
        answer = served.request(feed, "POST", body["resourceType"], body=body)
        assert answer.status == 201 and "tag" not in answer.json["meta"]


def test_each_element_that_may_name_a_speaker_is_decided() -> None:
    undecided = {
        f"{type}.{path}"
        for type in catalog()
        for path, targets in definitions.references(type).items()
        if path.rpartition(".")[2] in ("author", "sender", "recorder", "asserter", "requester", "informationSource", "enterer", "who")
        and not authors.SPEAKERS.isdisjoint(targets)
        and path not in authors.speaking(type)
    }
    assert undecided == set()
    assert "subject" not in authors.speaking("Observation") and "recipient" not in authors.speaking("Communication")
    assert "performer" in authors.speaking("Observation") and "performer" not in authors.speaking("ServiceRequest")


def test_hidden_part_of_a_report_does_not_show_in_a_refusal(served: Served, feed: str) -> None:
    clinician = served.token("demo-public", "user/*.cruds", "clinician")
    about = [ref("Account/adult-account"), ref("Patient/adult")]
    mark = {"tag": [{"system": REPORTED, "code": "patient-reported"}]}
    made = served.request(feed, "POST", "Communication", body=message("adult", sender=ref("Patient/adult"), about=about, meta=mark))
    shown = served.get(clinician, f"Communication/{made.json['id']}").json
    assert shown["about"] == about[1:]  # the account is hidden from the clinician
    answer = served.request(clinician, "PUT", f"Communication/{shown['id']}", body=shown | {"status": "stopped"})
    assert answer.status == 200 and answer.json["about"] == about[1:]
    assert len(served.get(feed, f"Communication/{shown['id']}").json["about"]) == 2
