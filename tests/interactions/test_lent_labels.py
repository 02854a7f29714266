"""What a row has lent stays lent: no deletion, replacement or move of a row shows what inherited from it, in either store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.seeded import seeded
from tests.served import Served, store_url

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
ACT = f"{TERMINOLOGY}/v3-ActCode"
TEEN = {"reference": "Patient/teen"}
DECLASSIFY = {"security": [{"system": ACT, "code": "DECLASSIFYLABEL"}]}
MINOR = [{"url": "https://fhir-server.example/ig/StructureDefinition/minor-consented", "valueBoolean": True}]
LATER = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2099-01-01T00:00:00Z"}]


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def loinc(code: str) -> dict[str, Any]:
    return coded("http://loinc.org", code)


def service(code: str) -> dict[str, Any]:
    return coded(f"{TERMINOLOGY}/service-type", code)


def place(code: str) -> list[dict[str, Any]]:
    return [coded(f"{TERMINOLOGY}/v3-RoleCode", code)]


VISIT: dict[str, Any] = {"status": "finished", "class": {"system": ACT, "code": "AMB"}, "subject": TEEN, "serviceType": service("124")}
ORDER: dict[str, Any] = {"status": "active", "intent": "order", "subject": TEEN, "code": loinc("718-7")}
RESULT: dict[str, Any] = {"status": "final", "code": loinc("718-7"), "subject": TEEN,
                          "category": [coded(f"{TERMINOLOGY}/observation-category", "laboratory")]}  # fmt: skip
REPORT: dict[str, Any] = {"status": "final", "code": loinc("58410-2"), "subject": TEEN,
                          "category": [coded(f"{TERMINOLOGY}/v2-0074", "LAB")]}  # fmt: skip
ROLE = {"reference": "PractitionerRole/dr-okafor-mental-health"}


class World:
    """A server, the feed that writes, and a teenager's parent."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.feed, self.parent = served.token(), served.app_token("parent-a", "teen")

    def put(self, name: str, /, **content: Any) -> None:
        type, _, id = name.partition("/")
        answer = self.served.request(self.feed, "PUT", name, body={"resourceType": type, "id": id, **content})
        assert answer.status in (200, 201), answer.body

    def delete(self, name: str) -> None:
        assert self.served.request(self.feed, "DELETE", name).status == 204

    def sees(self, name: str, token: str | None = None) -> bool:
        return self.served.get(token or self.parent, name).status == 200

    def body(self, name: str, token: str | None = None) -> dict[str, Any]:
        answer = self.served.get(token or self.parent, name)
        assert answer.status == 200
        return answer.json  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=("sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path_factory.mktemp("store")))
    yield server
    server.close()


@pytest.fixture
def world(served: Served) -> World:
    return World(served)


def chain(world: World, id: str) -> list[str]:
    """A confidential order, the visit for it, and what was found, prescribed and billed there; all names but that of the order."""
    world.put(f"ServiceRequest/{id}", **{**ORDER, "code": loinc("21613-5"), "extension": MINOR})
    world.put(f"Encounter/{id}", **VISIT, basedOn=[{"reference": f"ServiceRequest/{id}"}])
    visit = {"reference": f"Encounter/{id}"}
    world.put(f"Observation/{id}", **RESULT, encounter=visit)
    world.put(f"ChargeItem/{id}", status="billed", code=loinc("718-7"), subject=TEEN, context=visit)
    world.put(f"DiagnosticReport/{id}", **REPORT, result=[{"reference": f"Observation/{id}"}], conclusion="seen", encounter=visit)
    return [f"{type}/{id}" for type in ("Encounter", "Observation", "ChargeItem", "DiagnosticReport")]


def test_deleted_order_keeps_its_chain_hidden(world: World) -> None:
    names = chain(world, "lent-a")
    assert not any(map(world.sees, names))
    world.delete("ServiceRequest/lent-a")
    assert not any(map(world.sees, names))
    world.delete("Encounter/lent-a")
    assert not any(map(world.sees, names[1:]))


def test_replaced_and_moved_order_keeps_its_chain_hidden(world: World) -> None:
    names = chain(world, "lent-b")
    world.put("ServiceRequest/lent-b", **ORDER)
    assert world.sees("ServiceRequest/lent-b") and not any(map(world.sees, names))
    world.put("ServiceRequest/lent-b", **{**ORDER, "subject": {"reference": "Patient/child"}})
    assert not any(map(world.sees, names))


def test_explicit_release_shows_the_chain(world: World) -> None:
    names = chain(world, "lent-c")
    world.put("ServiceRequest/lent-c", **ORDER, meta=DECLASSIFY)
    assert all(map(world.sees, names))
    world.put("ServiceRequest/lent-c", **{**ORDER, "code": loinc("21613-5")})
    assert not any(map(world.sees, names))


def test_row_created_again_relabels_those_that_name_it(world: World) -> None:
    world.put("Encounter/again", **VISIT)
    world.put("Observation/again", **RESULT, encounter={"reference": "Encounter/again"})
    world.delete("Encounter/again")
    assert world.sees("Observation/again")
    world.put("Encounter/again", **{**VISIT, "serviceType": service("142")})
    assert not world.sees("Observation/again")
    world.delete("Encounter/again")
    world.put("Encounter/again", **VISIT)
    assert not world.sees("Observation/again")


def test_closed_unit_keeps_its_visits_hidden(world: World) -> None:
    world.put("Location/ward", status="active", name="Ward", type=place("PSY"))
    world.put("Location/room", status="active", name="Room 3", partOf={"reference": "Location/ward"})
    world.put("Encounter/ward", **VISIT, location=[{"location": {"reference": "Location/room"}}])
    world.put("Observation/ward", **RESULT, encounter={"reference": "Encounter/ward"})
    assert not world.sees("Encounter/ward") and not world.sees("Observation/ward")
    for change in ("move", "close", "delete"):
        if change == "move":
            world.put("Location/room", status="active", name="Room 3", type=place("FMC"))
        elif change == "close":
            world.put("Location/ward", status="inactive", name="Ward", type=place("FMC"))
        else:
            world.delete("Location/ward")
            world.delete("Location/room")
        assert not world.sees("Encounter/ward") and not world.sees("Observation/ward"), change
    world.put("Location/room", status="active", name="Room 3", type=place("FMC"), meta=DECLASSIFY)
    assert world.sees("Encounter/ward") and world.sees("Observation/ward")


def test_deleted_member_leaves_the_summary_hidden(world: World) -> None:
    world.put("Observation/member", **{**RESULT, "code": loinc("56888-1")})
    world.put("DiagnosticReport/member", **REPORT, result=[{"reference": "Observation/member"}], conclusion="reactive 1:32")
    before = world.body("DiagnosticReport/member")
    assert "conclusion" not in before and "result" not in before
    world.delete("Observation/member")
    assert world.body("DiagnosticReport/member") == before


def test_deleted_unreleased_member_holds_the_report(world: World) -> None:
    adult = {"reference": "Patient/adult"}
    own = world.served.app_token("adult", "adult")
    world.put("Observation/held", **{**RESULT, "subject": adult, "code": loinc("2823-3")}, extension=LATER)
    report = {**REPORT, "subject": adult, "conclusion": "K 9.87", "result": [{"reference": "Observation/held"}]}
    world.put("DiagnosticReport/held", **report)
    assert not world.sees("DiagnosticReport/held", own)
    world.delete("Observation/held")
    assert not world.sees("DiagnosticReport/held", own)
    world.put("Observation/freed", **{**RESULT, "subject": adult, "code": loinc("2823-3")}, extension=LATER)
    world.put("DiagnosticReport/freed", **{**report, "result": [{"reference": "Observation/freed"}]})
    assert not world.sees("DiagnosticReport/freed", own)
    world.put("Observation/freed", **{**RESULT, "subject": adult, "code": loinc("2823-3")})
    assert world.body("DiagnosticReport/freed", own)["conclusion"] == "K 9.87"


def test_version_counts_after_the_release_it_waited_for(world: World) -> None:
    own = world.served.app_token("adult", "adult")
    result = {**RESULT, "subject": {"reference": "Patient/adult"}}
    act = {"target": [{"reference": "Observation/waited"}], "agent": [{"who": {"reference": "Patient/adult"}}]}
    world.put("Observation/waited", **result, extension=LATER)
    world.put("Provenance/waited", **act, recorded="2026-03-02T09:00:00-04:00")
    assert not world.sees("Provenance/waited", own)
    world.put("Observation/waited", **result)
    world.put("Provenance/waited", **act, recorded="2026-03-02T10:00:00-04:00")
    assert world.body("Provenance/waited", own)["meta"]["versionId"] == "2"


def test_binary_keeps_release_and_labels_of_its_document(world: World) -> None:
    own = world.served.app_token("adult", "adult")
    document = {"status": "current", "subject": {"reference": "Patient/adult"}, "type": loinc("34133-9"),
                "content": [{"attachment": {"title": "x"}}]}  # fmt: skip
    for id, more in (("released", {}), ("waiting", {"extension": LATER})):
        world.put(f"DocumentReference/{id}", **document, **more)
        world.put(f"Binary/{id}", contentType="text/plain", data="eA==", securityContext={"reference": f"DocumentReference/{id}"})
    assert world.sees("Binary/released", own) and not world.sees("Binary/waiting", own)
    world.delete("DocumentReference/waiting")
    assert not world.sees("Binary/waiting", own)


def test_specimen_of_a_hidden_result_is_hidden(world: World) -> None:
    specimen = {"subject": TEEN, "type": coded("http://snomed.info/sct", "119297000")}
    for id, code in (("plain", "718-7"), ("secret", "56888-1")):
        world.put(f"Specimen/{id}", **specimen)
        world.put(f"Observation/of-{id}", **{**RESULT, "code": loinc(code)}, specimen={"reference": f"Specimen/{id}"})
    world.put("Observation/beside", **RESULT, specimen={"reference": "Specimen/secret"})
    assert world.sees("Specimen/plain") and not world.sees("Specimen/secret")
    assert "specimen" not in world.body("Observation/beside")  # the tube does not hide its other results
    world.put("Observation/of-secret", **{**RESULT, "code": loinc("56888-1")})
    assert not world.sees("Specimen/secret")
    world.delete("Observation/of-secret")
    assert not world.sees("Specimen/secret")


def test_specimen_takes_labels_that_reach_its_result_later(world: World) -> None:
    world.put("Encounter/tube", **VISIT)
    world.put("Specimen/tube", subject=TEEN, type=coded("http://snomed.info/sct", "119297000"))
    world.put("Observation/tube", **RESULT, specimen={"reference": "Specimen/tube"}, encounter={"reference": "Encounter/tube"})
    assert world.sees("Specimen/tube")
    world.put("Encounter/tube", **{**VISIT, "serviceType": service("142")})
    assert not world.sees("Specimen/tube") and not world.sees("Observation/tube")


def test_specimen_takes_labels_of_a_result_that_names_it_no_longer(world: World) -> None:
    """The labels of a result are those of all its versions, also of the one that named the specimen."""
    another = {"reference": "Specimen/another"}
    for id, specimen in (("another", {}), ("none", {}), ("deleted", {})):
        world.put(f"Specimen/{id}", subject=TEEN, type=coded("http://snomed.info/sct", "119297000"), **specimen)
    for id, later in (("of-none", {}), ("of-deleted", {"specimen": another})):
        named = {"reference": f"Specimen/{id.removeprefix('of-')}"}
        world.put(f"Observation/{id}", **RESULT, specimen=named)
        world.put(f"Observation/{id}", **RESULT, **later)
        assert world.sees(named["reference"])
        world.put(f"Observation/{id}", **{**RESULT, "code": loinc("56888-1")}, **later)
        assert not world.sees(named["reference"])
        if id == "of-deleted":
            world.delete(f"Observation/{id}")
            assert not world.sees(named["reference"]) and not world.sees("Specimen/another")


@pytest.mark.parametrize("deletes", [False, True])
def test_specimen_takes_labels_of_a_result_that_named_it_before(world: World, deletes: bool) -> None:
    tube, result = f"Specimen/left-{deletes}", f"Observation/left-{deletes}"
    world.put(tube, subject=TEEN, type=coded("http://snomed.info/sct", "119297000"))
    world.put(result, **RESULT, specimen={"reference": tube})
    if deletes:
        world.delete(result)
    assert world.sees(tube)
    world.put(result, **{**RESULT, "code": loinc("56888-1")})
    assert not world.sees(tube)
    world.put(result, **RESULT, meta=DECLASSIFY)
    assert world.sees(tube)


def test_labeled_specimen_hides_its_results(world: World) -> None:
    world.put("Specimen/swab", subject=TEEN, meta={"security": [{"system": ACT, "code": "STD"}]})
    world.put("Observation/swab", **RESULT, specimen={"reference": "Specimen/swab"})
    world.put("DiagnosticReport/swab", **REPORT, specimen=[{"reference": "Specimen/swab"}])
    assert not world.sees("Observation/swab") and not world.sees("DiagnosticReport/swab")
    world.delete("Specimen/swab")
    assert not world.sees("Observation/swab") and not world.sees("DiagnosticReport/swab")


def test_report_takes_the_labels_of_its_order(world: World) -> None:
    world.put("ServiceRequest/for-report", **ORDER, extension=MINOR)
    world.put("DiagnosticReport/ordered", **REPORT, basedOn=[{"reference": "ServiceRequest/for-report"}])
    assert not world.sees("DiagnosticReport/ordered")


def test_role_of_a_sensitive_department_hides_what_it_did(world: World) -> None:
    world.put("Encounter/role", **VISIT, participant=[{"individual": ROLE}])
    world.put("MedicationRequest/role", status="active", intent="order", subject=TEEN, requester=ROLE,
              medicationCodeableConcept=coded("http://www.nlm.nih.gov/research/umls/rxnorm", "435"))  # fmt: skip
    assert not world.sees("Encounter/role") and not world.sees("MedicationRequest/role")
    world.put("Observation/role", **RESULT, performer=[ROLE])
    world.put("CareTeam/role", status="active", subject=TEEN, participant=[{"member": ROLE}])
    for name in ("Observation/role", "CareTeam/role"):
        assert "mental-health" not in str(world.body(name)) and "mental-health" in str(world.body(name, world.feed))


def test_specialty_recorded_later_hides_the_visit(world: World) -> None:
    doctor = {"name": [{"text": "Dr. Grey"}]}
    world.put("Practitioner/grey", **doctor)
    world.put("Encounter/grey", **VISIT, participant=[{"individual": {"reference": "Practitioner/grey"}}])
    world.put("Observation/grey", **RESULT, encounter={"reference": "Encounter/grey"})
    assert world.sees("Encounter/grey") and world.sees("Observation/grey")
    psychiatry = coded("http://snomed.info/sct", "394587001")
    world.put("Practitioner/grey", **doctor, qualification=[{"code": psychiatry}])
    assert not world.sees("Encounter/grey") and not world.sees("Observation/grey")
    world.put("Practitioner/grey", **doctor)
    assert not world.sees("Encounter/grey") and not world.sees("Observation/grey")


@pytest.mark.parametrize("reference", ({"reference": "https://elsewhere.example/fhir/Encounter/1"}, {"identifier": {"value": "V-17"}}))
def test_doubt_about_the_context_reaches_the_end_of_the_chain(world: World, reference: dict[str, Any]) -> None:
    world.put("ServiceRequest/doubt", **ORDER, encounter=reference)
    world.put("Observation/doubt", **RESULT, basedOn=[{"reference": "ServiceRequest/doubt"}])
    assert not world.sees("ServiceRequest/doubt") and not world.sees("Observation/doubt")
    local = {**ORDER, "code": coded("http://local.example", "CBC-1")}
    world.put("ServiceRequest/local", **local)
    world.put("Observation/local", **RESULT, basedOn=[{"reference": "ServiceRequest/local"}])
    assert not world.sees("ServiceRequest/local") and world.sees("Observation/local")


def test_contained_visit_and_note_are_read_as_rows(world: World) -> None:
    def at(clinic: str) -> dict[str, Any]:
        inner = {"resourceType": "Encounter", "id": "e", "status": "finished", "class": VISIT["class"], "serviceType": service("124"),
                 "location": [{"location": {"reference": f"Location/{clinic}"}}]}  # fmt: skip
        return {**RESULT, "encounter": {"reference": "#e"}, "contained": [inner]}

    world.put("Observation/inside", **at("family-medicine-clinic"))
    assert world.sees("Observation/inside")
    world.put("Observation/inside", **at("mental-health-clinic"))
    assert not world.sees("Observation/inside")


def test_contained_member_is_masked_with_its_references(world: World) -> None:
    own = {name: value for name, value in RESULT.items() if name != "subject"}
    members = [
        {"resourceType": "Observation", "id": "a", **own, "note": [{"text": "asks about HIV"}], "valueString": "5.5"},
        {"resourceType": "Observation", "id": "b", **own, "code": coded("http://local.example", "TREP"), "valueString": "reactive"},
    ]
    report = {**REPORT, "contained": members, "result": [{"reference": "#a"}, {"reference": "#b"}], "conclusion": "reactive"}
    world.put("DiagnosticReport/inside", **report)
    seen = world.body("DiagnosticReport/inside")
    assert "reactive" not in str(seen) and "#b" not in str(seen) and "HIV" not in str(seen)
    for reference in (item["reference"] for item in seen.get("result", [])):
        assert reference[1:] in [inner["id"] for inner in seen.get("contained", [])]
    assert world.body("DiagnosticReport/inside", world.feed)["contained"] == members


def test_final_result_shows_the_summary_that_waited_for_it(world: World) -> None:
    world.put("Observation/early", **{**RESULT, "status": "preliminary"})
    world.put("DiagnosticReport/early", **REPORT, result=[{"reference": "Observation/early"}], conclusion="all well")
    assert "conclusion" not in world.body("DiagnosticReport/early")
    world.put("Observation/early", **RESULT)
    assert world.body("DiagnosticReport/early")["conclusion"] == "all well"
