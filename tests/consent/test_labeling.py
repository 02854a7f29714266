"""Labeling by codes, keywords, context, members, departments and security labels, and the classes of parts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import labeling as labelling
from fhir_server.consent.labeling import Labeler, LabelingResult, LabelSource
from fhir_server.consent.policy import load
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.visibility_classes import VisibilityClass

LABELLER = Labeler(load("optum"), SensitivityCodes.load())
IG = "https://fhir-server.example/ig"
PATIENT = {"reference": "Patient/p"}
IN_DOUBT = {"UNCLASSIFIED", "UNRESOLVED"}


def loinc(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def sct(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://snomed.info/sct", "code": code}]}


def rx(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": code}]}


def label(resource: dict[str, Any], *others: dict[str, Any], labeler: Labeler = LABELLER) -> LabelingResult:
    """Label ``others`` in order, then ``resource``, which may refer to them."""
    rows: dict[str, LabelSource] = {}

    async def lookup(type: str, id: str) -> LabelSource | None:
        return rows.get(f"{type}/{id}")

    async def run() -> LabelingResult:
        for other in others:
            found = await labeler.label(other["resourceType"], other, lookup)
            rows[f"{other['resourceType']}/{other['id']}"] = LabelSource(found.key, found.release_at, lambda other=other: other)
        return await labeler.label(resource["resourceType"], resource, lookup)

    return asyncio.run(run())


def observation(code: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o", "status": "final", "subject": PATIENT, "code": code,
            "category": [{"coding": [{"code": "laboratory"}]}], **more}  # fmt: skip


def encounter(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": "e", "status": "finished", "subject": PATIENT,
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
            "type": [sct("185349003")], **more}  # fmt: skip


def parts(found: LabelingResult) -> dict[tuple[str | int, ...], str]:
    return {path: key.text() for path, key in found.labeled_elements}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (loinc("718-7"), "lab||"), (loinc("20447-9"), "lab|HIV|"), (loinc("99999-9"), "lab|UNCLASSIFIED|"),
        ({"text": "Hemoglobin"}, "lab|UNCLASSIFIED|"), ({"text": "HIV viral load"}, "lab|HIV,UNCLASSIFIED|"),
        ({**loinc("718-7"), "text": "HIV clinic haemoglobin"}, "lab|HIV|"),
        ({"coding": [*loinc("718-7")["coding"], {"system": "http://local", "code": "HB"}]}, "lab||"),
        ({"coding": [*loinc("718-7")["coding"], *loinc("2106-3")["coding"]]}, "lab|PREG|"),
    ],
)  # fmt: skip
def test_result_is_labeled_by_its_codes_and_text(code: dict[str, Any], text: str) -> None:
    assert label(observation(code)).key.text() == text


def test_category_sets_data_class_and_its_code_must_be_listed() -> None:
    for category, data in (("vital-signs", "vitals"), ("survey", "survey"), ("social-history", "social")):
        text = f"{data}|UNCLASSIFIED|"
        assert label(observation(loinc("99999-9"), category=[{"coding": [{"code": category}]}])).key.text() == text


def test_detected_organism_labels_the_culture() -> None:
    assert label(observation(loinc("626-2"), valueCodeableConcept=sct("15628003"))).key.labels == {"STD"}
    assert label(observation(loinc("626-2"), valueString="grew Neisseria gonorrhoeae")).key.labels == {"STD"}
    assert label(observation(loinc("626-2"), valueString="no growth")).key.labels == frozenset()


def test_ambiguous_drug_is_labeled_only_with_a_second_signal() -> None:
    drug = {"resourceType": "MedicationRequest", "id": "m", "status": "active", "intent": "order", "subject": PATIENT,
            "medicationCodeableConcept": rx("18631")}  # fmt: skip
    assert label(drug).key.labels == {"UNCLASSIFIED"}
    assert label({**drug, "reasonCode": [{"text": "chlamydial infection"}]}).key.labels == {"STD", "UNCLASSIFIED"}
    reason = {"resourceType": "Condition", "id": "c", "subject": PATIENT, "code": {"coding": [
        {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "F32.A"}]}}  # fmt: skip
    assert label({**drug, "reasonReference": [{"reference": "Condition/c"}]}, reason).key.labels == {"MH", "STD", "UNCLASSIFIED"}


def test_medication_reference_takes_labels_of_its_target() -> None:
    request = {"resourceType": "MedicationRequest", "id": "m", "status": "active", "intent": "order", "subject": PATIENT,
               "medicationReference": {"reference": "Medication/d"}}  # fmt: skip

    def with_drug(code: dict[str, Any]) -> frozenset[str]:
        return label(request, {"resourceType": "Medication", "id": "d", "code": code}).key.labels

    assert with_drug(rx("161")) == frozenset()
    assert with_drug(rx("32937")) == {"MH"}
    assert "UNCLASSIFIED" in with_drug(rx("99999999"))
    assert "UNCLASSIFIED" in label(request).key.labels
    contained = {"resourceType": "Medication", "id": "d", "code": rx("32937")}
    inside = {**request, "medicationReference": {"reference": "#d"}, "contained": [contained]}
    assert label(inside).key.labels == {"MH"}
    assert label({**inside, "contained": [{**contained, "code": rx("161")}]}).key.labels == frozenset()


def test_result_inherits_labels_of_its_encounter() -> None:
    result = observation(loinc("718-7"), encounter={"reference": "Encounter/e"})
    assert label(result, encounter()).key.labels == frozenset()
    assert label(
        result,
        encounter(serviceType={"coding": [{"system": "http://terminology.hl7.org/CodeSystem/service-type", "code": "141"}]}),
    ).key.labels == {"MH"}
    flag = [{"url": f"{IG}/StructureDefinition/minor-consented", "valueBoolean": True}]
    assert label(result, encounter(extension=flag)).key.labels == {"MC"}
    assert label(result, encounter(meta={"security": [{"code": "PHY"}]})).key.labels == frozenset()


def test_missing_or_external_encounter_leaves_result_unclassified() -> None:
    for reference in ("Encounter/gone", "https://elsewhere.example/fhir/Encounter/1"):
        assert label(observation(loinc("718-7"), encounter={"reference": reference})).key.labels == IN_DOUBT


def test_sensitive_member_labels_its_reference_and_the_conclusion() -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "status": "final",
        "subject": PATIENT,
        "code": loinc("24323-8"),
        "conclusion": "see results",
        "result": [{"reference": "Observation/a"}, {"reference": "Observation/b"}],
    }
    clean, sensitive = observation(loinc("718-7"), id="a"), observation(loinc("20447-9"), id="b")
    found = label(report, clean, sensitive)
    assert found.key.text() == "lab||"
    assert parts(found)["result", 1] == "lab|HIV|" and parts(found)["conclusion",] == "lab|HIV|"
    assert ("result", 0) not in parts(found)
    assert "conclusion" not in {path[0] for path in parts(label(report, clean, observation(loinc("718-7"), id="b")))}
    assert set(found.label_sources) >= {"Observation/a", "Observation/b"}


def test_sensitive_component_becomes_a_labeled_element() -> None:
    panel = observation(loinc("24323-8"), component=[{"code": loinc("2345-7")}, {"code": loinc("2106-3")}, {"code": loinc("99999-9")}])
    found = label(panel)
    assert found.key.text() == "lab||"
    assert parts(found) == {("component", 1): "lab|PREG|", ("component", 2): "lab|UNCLASSIFIED|"}


def test_sensitive_diagnosis_labels_its_element_not_the_encounter() -> None:
    condition = {"resourceType": "Condition", "id": "c", "subject": PATIENT, "code": sct("15628003")}
    found = label(encounter(diagnosis=[{"condition": {"reference": "Condition/c"}}]), condition)
    assert found.key.text() == "visit||"
    assert parts(found)["diagnosis", 0] == "visit|STD|diagnosis"
    assert [guarded_reference.path for guarded_reference in found.guarded_references] == [("diagnosis", 0)]


def location(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Location", "id": id, **more}


def role(code: str) -> list[dict[str, Any]]:
    return [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": code}]}]


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        ([location("l", type=role("PEDC"))], set()),
        ([location("l", type=role("PSY"))], {"MH"}),
        ([location("l", name="Addiction Recovery Center")], {"SUD"}),
        ([location("l", name="Building 7")], IN_DOUBT),
        ([location("l", meta={"security": [{"system": f"{IG}/CodeSystem/sensitive-category", "code": "SEXAB"}]})], {"SEXAB"}),
        ([location("w", type=role("PHU")), location("l", name="Room 3", partOf={"reference": "Location/w"})], {"MH"}),
        ([location("w", type=role("ICU")), location("l", name="Bed 3", partOf={"reference": "Location/w"})], set()),
        ([], IN_DOUBT),
    ],
)  # fmt: skip
def test_encounter_takes_the_category_of_its_department(places: list[dict[str, Any]], labels: set[str]) -> None:
    found = label(encounter(location=[{"location": {"reference": "Location/l"}}]), *places)
    assert found.key.labels == labels


def test_only_department_organization_determines_encounter_category() -> None:
    def provided_by(code: str) -> frozenset[str]:
        organization = {"resourceType": "Organization", "id": "x", "name": "General", "type": [{"coding": [{"code": code}]}]}
        return label(encounter(serviceProvider={"reference": "Organization/x"}), organization).key.labels

    assert provided_by("prov") == frozenset()
    assert provided_by("dept") == IN_DOUBT


def test_directory_resource_has_no_labels_or_labeled_elements() -> None:
    assert label(location("l", type=role("PSY"), text={"status": "generated", "div": "x"})) == LabelingResult(
        (), VisibilityClass("directory"), 0, (), (), ()
    )


@pytest.mark.parametrize(
    ("security", "labels"),
    [
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "ETH"}], {"SUD"}),
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "TBOO"}], {"PHYHOLD"}),
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PSYTHPN"}], {"PSYNOTE"}),
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}], {"UNCLASSIFIED"}),
        (
            [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}, {"code": "WHATEVER"}],
            {"UNCLASSIFIED"},
        ),
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}, {"code": "SDV"}], {"SEXAB"}),
        ([{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}], set()),
        ([{"system": f"{IG}/CodeSystem/sensitive-category", "code": "MC"}], {"MC"}),
    ],
)
def test_explicit_security_labels_map_to_policy_labels(security: list[dict[str, str]], labels: set[str]) -> None:
    assert label(observation(loinc("718-7"), meta={"security": security})).key.labels == labels


@pytest.mark.parametrize(("status", "held"), [("final", False), ("amended", False), ("preliminary", True), ("registered", True)])
def test_non_final_results_are_held(status: str, held: bool) -> None:
    assert ("HELD" in label(observation(loinc("718-7"), status=status)).key.labels) is held


def test_a_diagnosis_entered_in_error_is_held() -> None:
    condition = {"resourceType": "Condition", "id": "c", "subject": PATIENT, "code": sct("38341003")}
    wrong = {"coding": [{"code": "entered-in-error"}]}
    assert label(condition).key.labels == frozenset()
    assert label({**condition, "verificationStatus": wrong}).key.labels == {"HELD"}


def test_release_date_is_parsed_and_invalid_one_never_releases() -> None:
    def at(text: str) -> int:
        return label(
            observation(loinc("718-7"), extension=[{"url": f"{IG}/StructureDefinition/release-at", "valueInstant": text}])
        ).release_at

    assert at("1970-01-01T00:00:01Z") == 1_000_000
    assert at("soon") == MAX_INSTANT
    assert label(observation(loinc("718-7"))).release_at == 0


def test_report_with_conclusion_waits_for_release_of_its_result() -> None:
    later = [{"url": f"{IG}/StructureDefinition/release-at", "valueInstant": "2026-12-01T00:00:00Z"}]
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "subject": PATIENT, "code": loinc("58410-2"),
              "result": [{"reference": "Observation/o"}]}  # fmt: skip
    result = observation(loinc("718-7"), extension=later)
    assert label({**report, "conclusion": "All well."}, result).release_at == label(result).release_at > 0
    assert label(report, result).release_at == 0  # the reference to the unreleased result is removed, and nothing else reveals it


def test_provenance_inherits_target_labels_and_patients() -> None:
    target = observation(loinc("20447-9"), status="preliminary")
    found = label({"resourceType": "Provenance", "id": "v", "target": [{"reference": "Observation/o"}]}, target)
    assert found.key.labels == {"HIV", "HELD"} and found.patients == ("p",)


def test_provenance_of_two_patients_is_mixed() -> None:
    other = observation(loinc("718-7"), id="q", subject={"reference": "Patient/q"})
    targets = [{"reference": "Patient/p"}, {"reference": "Observation/q"}]
    found = label({"resourceType": "Provenance", "id": "v", "target": targets}, other)
    assert found.patients == ("p", "q") and "MIXED" in found.key.labels


def test_binary_inherits_class_of_its_security_context() -> None:
    document = {"resourceType": "DocumentReference", "id": "d", "status": "current", "subject": PATIENT,
                "type": loinc("51852-2")}  # fmt: skip
    binary = {
        "resourceType": "Binary",
        "id": "b",
        "contentType": "text/plain",
        "securityContext": {"reference": "DocumentReference/d"},
    }
    found = label(binary, document)
    assert (found.key.text(), found.patients) == ("letter||", ("p",))
    del binary["securityContext"]
    alone = label(binary)
    assert (alone.key.text(), alone.patients) == ("note|UNCLASSIFIED|", ())


def test_multi_patient_resource_is_mixed_unless_its_type_is_shared() -> None:
    account = {"resourceType": "Account", "id": "a", "status": "active", "subject": [PATIENT, {"reference": "Patient/q"}]}
    assert label(account).key.labels == {"MIXED"} and label(account).patients == ("p", "q")
    people = [{"actor": {"reference": f"Patient/{one}"}, "status": "accepted"} for one in "pq"]
    found = label(
        {
            "resourceType": "Appointment",
            "id": "x",
            "status": "booked",
            "appointmentType": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0276", "code": "ROUTINE"}]},
            "participant": people,
        }
    )
    assert found.key.labels == frozenset()
    assert {(guarded_reference.path, guarded_reference.target) for guarded_reference in found.guarded_references} == {
        (("participant", 0), "Patient/p"),
        (("participant", 1), "Patient/q"),
    }


def test_performer_is_not_a_subject_of_the_resource() -> None:
    resource = observation(loinc("718-7"), performer=[{"reference": "Patient/mother"}])
    assert label(resource).patients == ("p",) == labelling.patient_ids("Observation", resource)
    assert [guarded_reference.target for guarded_reference in label(resource).guarded_references] == ["Patient/mother"]


def test_redactable_elements_have_their_own_class() -> None:
    found = label(encounter(text={"status": "generated", "div": "x"}, reasonCode=[sct("444814009")], _text={"id": "t"}))
    assert parts(found)["text",] == parts(found)["_text",] == "visit||text"
    assert parts(found)["reasonCode",] == "visit||reasonCode"
    assert ("class",) not in parts(found)


def test_contact_data_is_labeled_unless_it_is_household_data() -> None:
    home, own = {"system": "phone", "value": "1", "use": "home"}, {"system": "phone", "value": "2", "use": "mobile"}
    found = label(
        {
            "resourceType": "Patient",
            "id": "p",
            "telecom": [home, own, {"value": "3"}, {**home, "extension": [{"url": "u"}]}],
            "address": [{"city": "X", "use": "home"}],
        }
    )
    assert set(parts(found)) == {("telecom", 1), ("telecom", 2), ("telecom", 3)}
    assert found.patients == ("p",)


def test_display_text_labels_its_reference() -> None:
    found = label(
        observation(loinc("718-7"), performer=[{"reference": "Practitioner/d", "display": "Dr Roe, Psychiatry"}, {"display": "Dr Doe"}])
    )
    assert parts(found) == {("performer", 0): "lab|MH|"}


def test_nested_element_is_at_least_as_protected_as_its_parent() -> None:
    condition = {"resourceType": "Condition", "id": "c", "subject": PATIENT, "code": sct("15628003")}
    found = label(encounter(diagnosis=[{"condition": {"reference": "Condition/c", "display": "Suboxone"}}]), condition)
    keys = dict(found.labeled_elements)
    for path, key in keys.items():
        for length in range(1, len(path)):
            outer = keys.get(path[:length])
            assert outer is None or (outer.labels <= key.labels and (not outer.element or key.element))


def test_results_on_the_hold_list_are_held(tmp_path) -> None:
    path = tmp_path / "house.json"
    path.write_text('{"policy": "house", "extends": "optum", "switches": {"self.sensitive_tests": "hold_listed"},'
                    ' "holds": ["http://loinc.org|2857-1"]}')  # fmt: skip
    house = Labeler(load(str(path)), LABELLER.codes)
    assert label(observation(loinc("2857-1")), labeler=house).key.labels == {"HELD"}
    assert label(observation(loinc("718-7")), labeler=house).key.labels == frozenset()
    assert label(observation(loinc("2857-1"))).key.labels == frozenset()


def test_references_are_guarded_except_to_directory_resources() -> None:
    found = label(observation(loinc("718-7"), encounter={"reference": "Encounter/e"}, performer=[{"reference": "Practitioner/d"}],
                              hasMember=[{"reference": "Observation/x/_history/2"}]), encounter())  # fmt: skip
    assert {(guarded_reference.path, guarded_reference.target) for guarded_reference in found.guarded_references} == {
        (("encounter",), "Encounter/e"), (("hasMember", 0), "Observation/x"),
    }  # fmt: skip


def test_only_label_source_types_propagate_labels() -> None:
    assert LABELLER.propagates_labels("Encounter") and LABELLER.propagates_labels("Location") and LABELLER.propagates_labels("Practitioner")
    assert not LABELLER.propagates_labels("Patient") and not LABELLER.propagates_labels("Nonsense")
