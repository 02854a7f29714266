"""Composite parameters, ``:of-type`` and ``:identifier`` find what the caller sees, after an upgrade too."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.maintenance.relabel import relabel_store
from fhir_server.search import composites
from tests.filled import filled, served_with
from tests.served import Served

_LOINC, _UCUM, _ICD = "http://loinc.org", "http://unitsofmeasure.org", "http://hl7.org/fhir/sid/icd-10-cm"
_CHROMOSOMES = "http://terminology.hl7.org/CodeSystem/chromosome-human"
_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_LATER = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2030-01-01T00:00:00Z"}]


def _code(code: str, system: str = _LOINC) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def _quantity(value: float, code: str = "mm[Hg]") -> dict[str, Any]:
    return {"value": value, "unit": code, "system": _UCUM, "code": code}


def _row(id: str, code: str, **more: Any) -> dict[str, Any]:
    category = [_code("vital-signs", "http://terminology.hl7.org/CodeSystem/observation-category")]
    about = {"status": "final", "category": category, "subject": {"reference": "Patient/adult"}}
    return {"resourceType": "Observation", "id": id, **about, "code": _code(code), **more}


def _pressure(id: str, systolic: float, diastolic: float) -> dict[str, Any]:
    parts = [("8480-6", systolic), ("8462-4", diastolic)]
    return _row(id, "85354-9", component=[{"code": _code(code), "valueQuantity": _quantity(value)} for code, value in parts])


ROWS = (
    _pressure("high", 150, 80), _pressure("low", 110, 70), _pressure("inverted", 90, 150),
    _row("single", "8480-6", valueQuantity=_quantity(155)),
    _row("weight", "29463-7", valueQuantity=_quantity(150, "kg")),
    _row("answer", "72166-2", valueCodeableConcept=_code("266919005", "http://snomed.info/sct")),
    _row("parted", "85354-9", component=[
        {"code": _code("a"), "valueCodeableConcept": _code("x")}, {"code": _code("b"), "valueCodeableConcept": _code("y")},
    ]),
    _row("dated", "11778-8", valueDateTime="2026-03-04"),
    _row("of-screen", "8480-6", component=[
        {"code": _code("8480-6"), "valueQuantity": _quantity(140)},
        {"code": _code("68961-2"), "valueQuantity": _quantity(7, "1")},  # of a test for HIV
    ]),
    _row("visited", "8310-5", encounter={"reference": "Encounter/open", "identifier": {"system": "urn:visits", "value": "V1"}}),
    _row("kept", "8310-5", encounter={"reference": "Encounter/held", "identifier": {"system": "urn:visits", "value": "V2"}}),
    _row("named", "8310-5", performer=[{"identifier": {"system": "urn:staff", "value": "S1"}}]),
    _row("worded", "11778-8", valueString="Très clair"),
    _row("numbered", "8310-5", subject={"reference": "Patient/adult", "identifier": {"system": "urn:mrn", "value": "M1"}}),
    _row("typed-performer", "8310-5", performer=[{"type": "Practitioner", "identifier": {"system": "urn:mrn", "value": "M2"}}]),
)  # fmt: skip
VISIT = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/adult"}}
PERSON = {
    "resourceType": "Practitioner", "id": "typed", "identifier": [
        {"type": _code("MD", _TYPES), "system": "urn:licences", "value": "77"}, {"type": _code("NPI", _TYPES), "value": "88"},
    ],
}  # fmt: skip


STORED = (VISIT | {"id": "open"}, VISIT | {"id": "held", "extension": _LATER}, PERSON, *ROWS)
served = served_with(*STORED, stores=("memory",))


def _found(served: Served, token: str, path: str) -> set[str]:
    answer = served.get(token, f"{path}&_count=500")
    assert answer.status == 200, answer.json
    return set(answer.ids(path.partition("?")[0])) & {row["id"] for row in (*ROWS, PERSON)}


FOUND = [
    (f"component-code-value-quantity={_LOINC}|8480-6$gt120", {"high", "of-screen"}),
    ("component-code-value-quantity=8480-6$gt120", {"high", "of-screen"}),
    ("component-code-value-quantity=8462-4$gt120", {"inverted"}),
    (f"component-code-value-quantity=8480-6$150|{_UCUM}|mm[Hg]", {"high"}),
    (f"component-code-value-quantity=8480-6$150|{_UCUM}|kg", set()),
    ("component-code-value-quantity=|8480-6$gt120", set()),
    ("component-code-value-quantity=8480-6$150,8462-4$150", {"high", "inverted"}),
    ("component-code-value-quantity=8480-6$gt120&component-code-value-quantity=8462-4$lt90", {"high"}),
    ("combo-code-value-quantity=8480-6$gt120", {"high", "single", "of-screen"}),
    ("code-value-quantity=8480-6$gt120", {"single"}),
    ("code-value-quantity=29463-7$150||kg", {"weight"}),
    ("code-value-concept=72166-2$266919005", {"answer"}),
    ("component-code-value-concept=a$x", {"parted"}),
    ("component-code-value-concept=a$y", set()),
    ("combo-code-value-concept=b$y,72166-2$266919005", {"parted", "answer"}),
    ("code-value-date=11778-8$ge2026-03", {"dated"}),
    ("encounter:identifier=urn:visits|V1", {"visited"}),
    ("encounter:identifier=V2", {"kept"}),
    ("performer:identifier=urn:staff|S1", {"named"}),
    ("performer:identifier=urn:staff|S2", set()),
    ("code-value-string=11778-8$tres", {"worded"}),
    ("code-value-string=11778-8$clair", set()),
    ("code-value-string=8310-5$tres", set()),
    ("patient:identifier=urn:mrn|M1", {"numbered"}),
    ("subject:identifier=urn:mrn|M1", {"numbered"}),
    ("patient:identifier=M2,urn:staff|S1", set()),
    ("performer:identifier=M2", {"typed-performer"}),
]


@pytest.mark.parametrize(("query", "ids"), FOUND)
def test_pairs_are_of_the_same_element(served: Served, query: str, ids: set[str]) -> None:
    assert _found(served, served.token(), f"Observation?{query}") == ids


def test_relationship_of_documents_is_a_pair(served: Served) -> None:
    feed, own = served.token(), served.app_token("adult", "adult")
    document = {
        "resourceType": "DocumentReference", "status": "current", "subject": {"reference": "Patient/adult"},
        "content": [{"attachment": {"contentType": "text/plain", "data": "YQ=="}}],
    }  # fmt: skip
    later = {"extension": _LATER}
    others = [{"code": "replaces", "target": {"reference": "DocumentReference/first"}}]
    others.append({"code": "appends", "target": {"reference": "DocumentReference/unreleased"}})
    for id, more in (("first", {}), ("unreleased", later), ("second", {"relatesTo": others})):
        assert served.request(feed, "PUT", f"DocumentReference/{id}", body=document | {"id": id} | more).status == 201
    for value in ("replaces$DocumentReference/first", "replaces$first", "appends$DocumentReference/unreleased"):
        assert served.get(feed, f"DocumentReference?relationship={value}").ids() == ["second"], value
    for value in ("appends$DocumentReference/first", "replaces$unreleased"):
        assert served.get(feed, f"DocumentReference?relationship={value}").ids() == [], value
    assert served.get(own, "DocumentReference?relationship=replaces$first").ids() == ["second"]
    assert served.get(own, "DocumentReference?relationship=appends$unreleased").ids() == []


def test_identifier_of_a_type_is_that_of_the_same_identifier(served: Served) -> None:
    for value, ids in ((f"{_TYPES}|MD|77", {"typed"}), (f"{_TYPES}|NPI|88", {"typed"}), (f"{_TYPES}|MD|88", set()), ("x|MD|77", set())):
        assert _found(served, served.token(), f"Practitioner?identifier:of-type={value}") == ids


def test_pair_in_a_hidden_component_is_not_found(served: Served) -> None:
    own = served.app_token("parent-a", "teen")
    feed = served.token()
    row = ROWS[8] | {"id": "teen-screen", "subject": {"reference": "Patient/teen"}}
    assert served.request(feed, "PUT", "Observation/teen-screen", body=row).status == 201
    shown = served.get(own, "Observation/teen-screen")
    for query, code in (("8480-6$140", "8480-6"), ("68961-2$7", "68961-2")):
        is_shown = shown.status == 200 and code in str(shown.json.get("component"))
        found = served.get(own, f"Observation?component-code-value-quantity={query}").ids()
        assert ("teen-screen" in found) == is_shown, (query, shown.json)
        assert "teen-screen" in served.get(feed, f"Observation?component-code-value-quantity={query}").ids()
    assert served.request(feed, "DELETE", "Observation/teen-screen").status == 204


def test_identifier_in_a_reference_to_a_hidden_row_is_not_found(served: Served) -> None:
    own = served.app_token("adult", "adult")
    assert "encounter" in served.get(own, "Observation/visited").json and "encounter" not in served.get(own, "Observation/kept").json
    assert _found(served, own, "Observation?encounter:identifier=urn:visits|V2") == set()
    assert _found(served, own, "Observation?encounter:identifier=urn:visits|V1") == {"visited"}


def test_resources_of_an_earlier_version_are_found_after_relabel(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = composites.entries
    monkeypatch.setattr(composites, "entries", lambda *_: iter(()))
    server = filled(*STORED)
    monkeypatch.setattr(composites, "entries", exact)
    feed, path = server.token(), "Observation?component-code-value-quantity=8480-6$gt120"
    assert _found(server, feed, path) == set()
    report = server.run(relabel_store(server.parts.store, server.parts.labeler, server.settings.base, server.parts.clock()))
    assert _found(server, feed, path) == {"high", "of-screen"} and report.changed == 0
    server.close()


def test_windows_of_a_reference_sequence_are_found_by_what_they_are_of_and_both_ends() -> None:
    served = Served(seeds=False)
    feed = served.token()
    rows = {"one": ("1", 100, 200), "wide": ("1", 50, 400), "other": ("2", 100, 200), "named": ("NC_2", 100, 200)}
    for id, (name, start, end) in rows.items():
        reference = {"windowStart": start, "windowEnd": end, "orientation": "sense"}
        if name.isdigit():
            reference |= {"chromosome": _code(name, _CHROMOSOMES), "genomeBuild": "GRCh 37"}
        else:
            reference |= {"referenceSeqId": _code(name)}
        body = {"resourceType": "MolecularSequence", "id": id, "coordinateSystem": 0, "referenceSeq": reference}
        answer = served.request(feed, "PUT", f"MolecularSequence/{id}", body=body)
        assert answer.status == 201, answer.body
    for query, found in (
        ("chromosome-window-coordinate=1$gt60$lt300", ["one"]), ("chromosome-window-coordinate=1$50$400", ["wide"]),
        ("chromosome-window-coordinate=1$le100$ge200", ["one", "wide"]), ("chromosome-window-coordinate=3$ge1$ge1", []),
        ("chromosome-window-coordinate=1$50$400,2$100$200", ["other", "wide"]),
        ("referenceseqid-window-coordinate=NC_2$100$200", ["named"]),
    ):  # fmt: skip
        assert sorted(served.get(feed, f"MolecularSequence?{query}").ids()) == found, query
    for query in ("chromosome-window-coordinate=1$5", "chromosome-window-coordinate=1$x$3"):
        assert served.get(feed, f"MolecularSequence?{query}").status == 400, query
    served.close()
