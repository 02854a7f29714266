"""``Patient/[id]/$summary``: the structure of IPS 1.1, and what it never tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.fhir_xml import to_json
from fhir_server.interactions import patient_summary
from fhir_server.resources import validate
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

IPS = "http://hl7.org/fhir/uv/ips/StructureDefinition"
# section -> whether the profile requires it, and the types of its entries
SECTIONS = {
    "11450-4": (True, {"Condition"}),
    "48765-2": (True, {"AllergyIntolerance"}),
    "10160-0": (True, {"MedicationStatement", "MedicationRequest"}),
    "11369-6": (False, {"Immunization"}),
    "30954-2": (False, {"Observation"}),
    "47519-4": (False, {"Procedure"}),
    "46264-8": (False, {"DeviceUseStatement"}),
    "8716-3": (False, {"Observation"}),
}


@pytest.fixture(scope="module", params=["memory:", "sqlite", "mongodb"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


def summary(served: Served, token: str, patient: str) -> dict[str, Any]:
    answer = served.get(token, f"Patient/{patient}/$summary")
    assert answer.status == 200, answer.body
    bundle: dict[str, Any] = jsontext.parse(answer.body)
    assert defects(bundle) == []
    return bundle


def defects(bundle: dict[str, Any]) -> list[str]:
    """What contradicts R4, or the cardinalities and fixed values of the profiles Bundle-uv-ips and Composition-uv-ips."""
    found = [f"R4: {issue.text} {issue.expression}" for issue in validate.check("Bundle", bundle)]
    resources = {entry.get("fullUrl"): entry["resource"] for entry in bundle["entry"]}
    composition = bundle["entry"][0]["resource"]

    def require(holds: Any, text: str) -> None:
        found.extend([] if holds else [text])

    require(bundle["type"] == "document" and bundle["identifier"]["value"] and bundle["timestamp"], "Bundle: type, identifier, timestamp")
    require(bundle["meta"]["profile"] == [f"{IPS}/Bundle-uv-ips"], "Bundle.meta.profile")
    require(len(resources) == len(bundle["entry"]) and None not in resources, "Bundle.entry.fullUrl: one each")
    require(composition["resourceType"] == "Composition" and composition["meta"]["profile"] == [f"{IPS}/Composition-uv-ips"], "Composition")
    require(composition["type"]["coding"][0] == {
        "system": "http://loinc.org", "code": "60591-5", "display": "Patient summary Document"}, "Composition.type")  # fmt: skip
    require(resources[composition["subject"]["reference"]]["resourceType"] == "Patient", "Composition.subject")
    require(all(one["reference"] in resources for one in composition["author"]) and composition["author"], "Composition.author")
    require(composition["status"] == "final" and composition["date"] and composition["title"], "Composition: status, date, title")
    codes = [section["code"]["coding"][0]["code"] for section in composition["section"]]
    require(len(codes) == len(set(codes)) and set(codes) <= set(SECTIONS), f"sections: {codes}")
    require({code for code, (required, _) in SECTIONS.items() if required} <= set(codes), "a required section is missing")
    for code, section in zip(codes, composition["section"], strict=True):
        require(section["title"] and section["text"]["status"] == "generated" and section["text"]["div"], f"{code}: title, text")
        require(("entry" in section) != ("emptyReason" in section), f"{code}: ips-comp-1")
        for entry in section.get("entry", ()):
            require(resources.get(entry["reference"], {}).get("resourceType") in SECTIONS[code][1], f"{code}: {entry}")
    return found


def entries(bundle: dict[str, Any], code: str) -> list[str]:
    """Type and id of the entries of a section; none if it is absent."""
    sections = bundle["entry"][0]["resource"]["section"]
    named = [one["reference"] for section in sections if section["code"]["coding"][0]["code"] == code for one in section.get("entry", ())]
    return ["/".join(text.split("/")[-2:]) for text in named]


def test_the_whole_record_makes_all_sections_for_which_there_is_something(served: Served) -> None:
    bundle = summary(served, served.token(), "adult")
    codes = [section["code"]["coding"][0]["code"] for section in bundle["entry"][0]["resource"]["section"]]
    assert {"11450-4", "48765-2", "10160-0", "11369-6", "30954-2", "47519-4", "8716-3"} <= set(codes)
    assert {entry["resource"]["resourceType"] for entry in bundle["entry"]} >= {"Composition", "Patient", "Device", "Condition"}
    assert all({name.partition("/")[0] for name in entries(bundle, code)} <= types for code, (_, types) in SECTIONS.items())


def test_the_check_finds_defects(served: Served) -> None:
    def broken(change: Any) -> list[str]:
        bundle = summary(served, served.token(), "adult")
        change(bundle, bundle["entry"][0]["resource"])
        return defects(bundle)

    assert broken(lambda bundle, composition: composition["section"].pop(0)) == ["a required section is missing"]
    assert broken(lambda bundle, composition: composition["section"][0].pop("entry"))
    assert broken(lambda bundle, composition: composition["type"]["coding"][0].update(code="x")) == ["Composition.type"]
    assert broken(lambda bundle, composition: bundle.pop("timestamp") and bundle.update(timestamp=None))
    assert broken(lambda bundle, composition: bundle["entry"].pop(3))


def condition(id: str, patient: str, clinical: str = "active", **more: Any) -> dict[str, Any]:
    status = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": clinical}]}
    return {"resourceType": "Condition", "id": id, "clinicalStatus": status, "subject": {"reference": f"Patient/{patient}"},
            "code": {"text": f"<{id}> & more"}, **more}  # fmt: skip


def test_hidden_rows_leave_no_trace_and_an_empty_section_is_always_the_same(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    hidden = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    before = served.get(parent, "Patient/teen/$summary")
    assert served.request(feed, "PUT", "Condition/ips-hidden", body=condition("ips-hidden", "teen", meta=hidden)).status == 201
    assert served.get(parent, "Patient/teen/$summary").body == before.body
    assert "Condition/ips-hidden" in entries(summary(served, feed, "teen"), "11450-4")
    assert served.request(feed, "PUT", "Patient/ips-none", body={"resourceType": "Patient", "id": "ips-none"}).status == 201
    bare = summary(served, feed, "ips-none")["entry"][0]["resource"]["section"]
    narrow = summary(served, served.app_token("adult", "adult", "patient/Patient.r"), "adult")["entry"][0]["resource"]["section"]
    assert bare == narrow and [section["emptyReason"]["coding"][0]["code"] for section in bare] == ["unavailable"] * 3


def test_what_is_over_or_wrong_is_left_out_and_narrative_is_escaped(served: Served) -> None:
    feed = served.token()
    assert served.request(feed, "PUT", "Patient/ips-p", body={"resourceType": "Patient", "id": "ips-p"}).status == 201
    rows = [condition("ips-now", "ips-p"), condition("ips-over", "ips-p", "resolved", abatementDateTime="2020")]
    for row in rows:
        assert served.request(feed, "PUT", f"Condition/{row['id']}", body=row).status == 201
    bundle = summary(served, feed, "ips-p")
    assert entries(bundle, "11450-4") == ["Condition/ips-now"]
    assert "&lt;ips-now&gt; &amp; more, active" in bundle["entry"][0]["resource"]["section"][0]["text"]["div"]


def test_the_narrative_says_what_was_given_and_not_why(served: Served) -> None:
    feed, about = served.token(), {"status": "active", "subject": {"reference": "Patient/ips-w"}, "reasonCode": [{"text": "The reason"}]}
    assert served.request(feed, "PUT", "Patient/ips-w", body={"resourceType": "Patient", "id": "ips-w"}).status == 201
    rows: list[dict[str, Any]] = [
        {"resourceType": "MedicationStatement", **about, "medicationReference": {"display": "Aspirin 100 mg"}},
        {"resourceType": "DeviceUseStatement", **about, "device": {"display": "Insulin pump"}},
        condition("ips-odd", "ips-w", code={"text": "odd \ufffe\uffff & <"}),
    ]
    for row in rows:
        assert served.request(feed, "POST", row["resourceType"], body=row).status == 201
    divs = "".join(section["text"]["div"] for section in summary(served, feed, "ips-w")["entry"][0]["resource"]["section"])
    assert "<li>Aspirin 100 mg, active</li>" in divs and "<li>Insulin pump, active</li>" in divs
    assert "The reason" not in divs and "odd \ufffd\ufffd &amp; &lt;" in divs
    assert to_json(served.get(feed, "Patient/ips-w/$summary?_format=xml").body)


def test_of_too_many_results_the_recent_ones_count(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = served.token()
    assert served.request(feed, "PUT", "Patient/ips-long", body={"resourceType": "Patient", "id": "ips-long"}).status == 201
    category = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
    for number, (code, date) in enumerate(
        [("718-7", "2020-01-01"), ("2093-3", "2026-10-01"), ("718-7", "2026-11-20"), ("718-7", "2026-11-19")]
    ):
        row = {"resourceType": "Observation", "id": f"ips-long-{number}", "status": "final", "category": [category],
               "code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "subject": {"reference": "Patient/ips-long"},
               "effectiveDateTime": date}  # fmt: skip
        assert served.request(feed, "PUT", f"Observation/{row['id']}", body=row).status == 201
    for considered, found in ((4, ["2", "1"]), (3, ["2", "1"]), (2, ["2"])):
        monkeypatch.setattr(patient_summary, "_CONSIDERED", considered)
        assert entries(summary(served, feed, "ips-long"), "30954-2") == [f"Observation/ips-long-{number}" for number in found]
    monkeypatch.setattr(patient_summary, "_CONSIDERED", 1)
    assert served.get(feed, "Patient/ips-long/$summary").json["issue"][0]["code"] == "too-costly"


def test_every_way_to_ask_and_what_is_refused(served: Served) -> None:
    feed, profile = served.token(), f"{IPS}/Bundle-uv-ips"
    once = served.get(feed, "Patient/senior/$summary")
    assert served.request(feed, "POST", "Patient/senior/$summary").body == once.body
    assert served.get(feed, f"Patient/senior/$summary?profile={profile}").body == once.body
    asked: list[tuple[str, str, int]] = [
        (feed, "Patient/senior/$summary?profile=x", 400), (feed, "Patient/senior/$summary?colour=red", 400),
        (served.app_token("parent-a", "teen"), "Patient/adult/$summary", 404), (feed, "Patient/nobody/$summary", 404),
        (served.token(scope="system/Observation.rs"), "Patient/senior/$summary", 403),
    ]  # fmt: skip
    answers: list[Answer] = [served.get(token, path) for token, path, _ in asked]
    assert [answer.status for answer in answers] == [status for _, _, status in asked]
