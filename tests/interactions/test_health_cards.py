"""Proof of vaccination as SMART Health Cards: what is in a card, of whom, for whom.

https://hl7.org/fhir/uv/smart-health-cards-and-links/cards-specification.html
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.audit import LOG_NAME
from fhir_server.interactions.vaccine_diseases import DISEASES, against, codes_of
from fhir_server.smart.accounts import users
from fhir_server.smart.core import signing_keys
from tests.interactions.health_card_verifier import is_valid, resources, verified
from tests.seeded import seeded
from tests.served import Answer, Served

CVX = "http://hl7.org/fhir/sid/cvx"
ORIGINS = "http://terminology.hl7.org/CodeSystem/immunization-origin"
IG = "https://fhir-server.example/ig"
OPERATION = "$health-cards-issue"
ALL = "?credentialType=Immunization"
COVID, FLU, MMR, MEASLES = "208", "140", "03", "05"
SHINGLES = "187"  # no demo record has such a vaccination
SUPPLIED = {"system": "http://hl7.org/fhir/us/core/CodeSystem/us-core-tags", "code": "patient-supplied"}
Json = dict[str, Any]


@pytest.fixture
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """A server for tests that write nothing."""
    server = seeded()
    yield server
    server.close()


def immunization(id: str, code: str, patient: str = "adult", **more: Any) -> Json:
    return {
        "resourceType": "Immunization", "id": id, "status": "completed", "patient": {"reference": f"Patient/{patient}"},
        "vaccineCode": {"coding": [{"system": CVX, "code": code, "display": "a vaccine"}], "text": "A vaccine"},
        "occurrenceDateTime": "2024-03-01", "primarySource": True, **more,
    }  # fmt: skip


def feed(served: Served, resource: Json) -> None:
    """Store a resource, as the institution's feed does."""
    answer = served.request(served.token(), "PUT", f"{resource['resourceType']}/{resource['id']}", body=resource)
    assert answer.status in (200, 201), answer.json


def issue(served: Served, user: str, patient: str, query: str = ALL, scope: str = "patient/*.rs") -> Answer:
    return served.get(served.app_token(user, patient, scope), f"Patient/{patient}/{OPERATION}{query}")


def credentials(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.json
    return [one["valueString"] for one in answer.json.get("parameter", ()) if one["name"] == "verifiableCredential"]


def keys(served: Served) -> Json:
    return served.run(signing_keys.jwks(served.parts.smart, signing_keys.CARDS))


def payloads(served: Served, answer: Answer) -> list[Json]:
    published = keys(served)
    return [verified(card, published) for card in credentials(answer)]


def vaccines(payload: Json) -> list[str]:
    return [one["vaccineCode"]["coding"][0]["code"] for one in resources(payload)[1:]]


def all_vaccines(served: Served, answer: Answer) -> set[str]:
    return {code for payload in payloads(served, answer) for code in vaccines(payload)}


def test_f12_1_a_card_verifies_with_an_independent_verifier_against_the_published_key(shared: Served) -> None:
    answer = issue(shared, "adult", "adult")
    for payload in payloads(shared, answer):
        assert payload["iss"] == shared.settings.origin and payload["nbf"] == shared.parts.clock() // 1_000_000
        assert payload["vc"]["type"][:2] == ["https://smarthealth.cards#health-card", "https://smarthealth.cards#immunization"]
        assert payload["vc"]["credentialSubject"]["fhirVersion"] == "4.0.1"
    assert FLU in all_vaccines(shared, answer)
    assert json.loads(shared.get(None, ".well-known/smart-configuration").body)["capabilities"].count("health-cards") == 1


def test_a_card_has_the_name_and_the_birth_date_and_of_a_vaccination_what_a_verifier_needs(served: Served) -> None:
    feed(served, immunization("noted", SHINGLES, lotNumber="L-1", note=[{"text": "a note"}], meta={"tag": [{"system": "x", "code": "y"}]}))
    found = payloads(served, issue(served, "adult", "adult"))
    [payload] = [one for one in found if SHINGLES in vaccines(one)]
    bundle = payload["vc"]["credentialSubject"]["fhirBundle"]
    assert bundle["type"] == "collection" and set(bundle) == {"resourceType", "type", "entry"}
    assert [entry["fullUrl"] for entry in bundle["entry"]] == ["resource:0", "resource:1"]
    assert resources(payload) == [
        {"resourceType": "Patient", "name": [{"family": "Adult", "given": ["Alex"]}], "birthDate": "1984-03-09"},
        {
            "resourceType": "Immunization", "status": "completed", "vaccineCode": {"coding": [{"system": CVX, "code": SHINGLES}]},
            "patient": {"reference": "resource:0"}, "occurrenceDateTime": "2024-03-01", "lotNumber": "L-1",
        },
    ]  # fmt: skip
    covid = [vaccines(one) for one in found if "https://smarthealth.cards#covid19" in one["vc"]["type"]]
    assert covid == [[COVID, COVID, "309"]]


def test_the_answer_says_which_resources_those_in_a_card_were(shared: Served) -> None:
    answer = issue(shared, "adult", "adult")
    links = [{part["name"]: part.get("valueUri", part.get("valueInteger")) for part in one["part"]}
             for one in answer.json["parameter"] if one["name"] == "resourceLink"]  # fmt: skip
    assert {"vcIndex": 0, "bundledResource": "resource:0", "hostedResource": f"{shared.settings.base}/Patient/adult"} in links
    for index, payload in enumerate(payloads(shared, answer)):
        of_card = [one for one in links if one["vcIndex"] == index]
        assert [one["bundledResource"] for one in of_card] == [f"resource:{number}" for number in range(len(resources(payload)))]


def test_f12_2_an_altered_payload_fails(shared: Served) -> None:
    card, published = credentials(issue(shared, "adult", "adult"))[0], keys(shared)
    assert is_valid(card, published)
    head, payload, signature = card.split(".")
    content = verified(card, published)
    resources(content)[0]["birthDate"] = "1990-01-01"
    compressor = zlib.compressobj(wbits=-15)
    altered = compressor.compress(json.dumps(content).encode()) + compressor.flush()
    assert not is_valid(f"{head}.{base64.urlsafe_b64encode(altered).decode().rstrip('=')}.{signature}", published)
    other = "B" if signature[5] != "B" else "C"
    assert not is_valid(f"{head}.{payload}.{signature[:5]}{other}{signature[6:]}", published)


def test_f12_3_a_dose_that_a_person_reported_is_absent_until_it_is_recorded_from_a_document(served: Served) -> None:
    token = served.app_token("adult", "adult")
    reported = immunization("", SHINGLES, primarySource=False)
    del reported["id"]
    answer = served.request(token, "POST", "Immunization", body=reported)
    assert answer.status == 201, answer.json
    assert "reported-by" in served.get(token, f"Immunization/{answer.json['id']}").body.decode()
    assert SHINGLES not in all_vaccines(served, issue(served, "adult", "adult"))
    origin = {"coding": [{"system": ORIGINS, "code": "record"}]}
    feed(served, immunization("from-paper", SHINGLES, primarySource=False, reportOrigin=origin))
    assert SHINGLES in all_vaccines(served, issue(served, "adult", "adult"))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "not-done"},
        {"meta": {"tag": [SUPPLIED]}},
        {"status": "entered-in-error"},
        {"isSubpotent": True},
        {"primarySource": None},
        {"primarySource": False},
        {"primarySource": False, "reportOrigin": {"coding": [{"system": ORIGINS, "code": "recall"}]}},
        {"primarySource": False, "reportOrigin": {"coding": [{"system": "https://other.example", "code": "record"}]}},
        {"occurrenceDateTime": None, "occurrenceString": "in the spring"},
        {"vaccineCode": {"text": "A vaccine"}},
        {"vaccineCode": {"coding": [{"system": "http://snomed.info/sct", "code": SHINGLES}]}},
        {"vaccineCode": {"coding": [{"system": CVX, "code": SHINGLES}, {"system": CVX, "code": FLU}]}},
        {"vaccineCode": {"coding": [{"system": CVX, "code": "96"}]}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_no_card_has_what_the_institution_does_not_vouch_for(served: Served, change: Json) -> None:
    row = {name: value for name, value in {**immunization("doubtful", SHINGLES), **change}.items() if value is not None}
    before = issue(served, "adult", "adult").body
    feed(served, row)
    assert issue(served, "adult", "adult").body == before
    feed(served, immunization("sound", SHINGLES))
    assert SHINGLES in all_vaccines(served, issue(served, "adult", "adult"))


def test_whoever_sees_a_row_sees_that_a_person_supplied_it_and_no_other_tag(served: Served) -> None:
    other = {"system": "https://feed.example/tags", "code": "batch-7"}
    feed(served, immunization("supplied", SHINGLES, meta={"tag": [other, SUPPLIED]}))
    for user in ("adult", "proxy-standard", "proxy-full"):
        seen = served.get(served.app_token(user, "adult"), "Immunization/supplied").json
        assert seen["meta"]["tag"] == [SUPPLIED], user


def minor_policy(folder: Path) -> str:
    path = folder / "house.json"
    path.write_text('{"policy": "house", "extends": "optum", "minor_account": {"min_age": 13}}')
    return str(path)


def test_f12_4_a_vaccine_that_the_minor_consented_to_is_in_the_teens_card_and_not_in_the_parents(tmp_path: Path) -> None:
    own, twin = (seeded(policy=minor_policy(tmp_path)) for _ in range(2))
    mark = {"url": f"{IG}/StructureDefinition/minor-consented", "valueBoolean": True}
    feed(own, immunization("alone", COVID, "teen", extension=[mark]))
    own.run(users.create(own.parts.store, "toni", "A-long-pass-2026", "patient", patient="teen"))
    assert COVID in all_vaccines(own, issue(own, "toni", "teen"))
    of_parent = issue(own, "parent-a", "teen")
    assert of_parent.body == issue(twin, "parent-a", "teen").body and credentials(of_parent)
    assert COVID not in all_vaccines(own, of_parent)
    for server in (own, twin):
        server.close()


def test_f12_5_one_disease_has_one_card(served: Served) -> None:
    feed(served, immunization("mmr-1", MMR))
    feed(served, immunization("measles-1", MEASLES, occurrenceDateTime="2024-06-01"))
    found = [vaccines(payload) for payload in payloads(served, issue(served, "adult", "adult"))]
    assert all(against(codes) for codes in found), "the vaccines of a card have a disease in common"
    assert [MMR, MEASLES] in found, "all doses against measles"
    assert [MMR] in found, "mumps and rubella share a card: it has the same doses"
    assert [COVID, COVID, "309"] in found, "the oldest first"
    assert len(found) == len({tuple(codes) for codes in found}) == 6


def with_level(served: Served, level: str) -> None:
    """Give the proxy of the adult this level."""
    token = served.token()
    text = served.get(token, "Consent/proxy-standard-of-adult").body.decode().replace('"code":"standard"', f'"code":"{level}"')
    assert served.request(token, "PUT", "Consent/proxy-standard-of-adult", body=json.loads(text)).status == 200


def test_f12_6_a_proxy_for_visits_or_bills_gets_no_card(served: Served) -> None:
    assert credentials(issue(served, "proxy-standard", "adult"))
    for level in ("scheduling", "billing"):
        with_level(served, level)
        for query in (ALL, "?credentialType=Nothing"):
            answer = issue(served, "proxy-standard", "adult", query)
            assert answer.status == 403 and "may not ask" in answer.body.decode(), (level, answer.json)


def test_staff_and_systems_get_no_card(shared: Served) -> None:
    assert issue(shared, "clinician", "adult").status == 403
    assert shared.get(shared.token(scope="system/*.rs"), f"Patient/adult/{OPERATION}{ALL}").status == 403


def test_another_patient_is_like_one_who_does_not_exist(shared: Served) -> None:
    token = shared.app_token("parent-a", "child")
    answers = [shared.get(token, f"Patient/{id}/{OPERATION}{ALL}") for id in ("adult", "nobody")]
    assert [one.status for one in answers] == [404, 404]
    assert answers[0].body.replace(b"adult", b"nobody") == answers[1].body


def test_the_same_card_is_the_same_text_whoever_asks(shared: Served) -> None:
    """So that neither its signature nor its content tells of what only one of them sees."""
    assert credentials(issue(shared, "proxy-full", "adult")) == credentials(issue(shared, "adult", "adult"))


def test_a_card_of_a_retired_key_still_verifies_and_new_ones_have_the_new_key(served: Served) -> None:
    smart = served.parts.smart
    card, before = credentials(issue(served, "adult", "adult"))[0], keys(served)
    served.run(signing_keys.rotate(smart, "ES256"))
    new = credentials(issue(served, "adult", "adult"))[0]
    assert not is_valid(new, before) and is_valid(new, keys(served))
    served.at("2036-11-21T12:00:00Z")
    assert len(keys(served)["keys"]) == 2 and is_valid(card, keys(served)), "cards do not expire"
    old = next(key for key in served.run(signing_keys.list_all(smart)) if key.kid == before["keys"][0]["kid"])
    assert old.pem == b"", "the private key is not kept"
    tokens = served.run(signing_keys.jwks(smart))
    assert {key["alg"] for key in tokens["keys"]} == {"RS256", "ES384"}, "id_tokens have other keys"


def test_each_disease_has_vaccines_and_its_own_address() -> None:
    assert len({disease.slug for disease in DISEASES}) == len(DISEASES)
    assert all(disease.codes for disease in DISEASES)
    assert [disease.slug for disease in against([MMR])] == ["measles", "mumps", "rubella"]
    assert against([]) == () and against(["999"]) == ()
    assert codes_of("https://terminology.smarthealth.cards/ValueSet/immunization-all-all") is None


def test_the_audit_log_says_who_got_cards_of_which_vaccinations(served: Served) -> None:
    store = served.parts.store
    issue(served, "proxy-full", "adult")
    served.run(served.parts.auditor.flush())
    lines = [line for _, line in served.run(store.read_log(LOG_NAME)) if b"proxy-full" in line]
    assert len(lines) == 1
    assert all(name in lines[0] for name in (b"proxy-full", b"Patient/adult", b"Immunization/adult-covid-1"))
