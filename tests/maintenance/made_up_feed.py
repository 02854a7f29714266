"""A made-up feed of a clinic with codes of its own, and what is truly ordinary and truly sensitive in it.

Visits have codes of a local table, drugs NDC or RxNorm numbers that no shipped list has, departments codes of the institution's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PATIENT = "teen"
VISITS, DEPARTMENTS = "https://clinic.example/visit-types", "https://clinic.example/departments"
NDC, RXNORM, LOINC = "http://hl7.org/fhir/sid/ndc", "http://www.nlm.nih.gov/research/umls/rxnorm", "http://loinc.org"
# (code, label): "" is ordinary.  The clinic's list leaves the last ordinary visit type and drug out.
VISIT_TYPES = [(f"V{number}", "") for number in range(100, 140)] + [("V901", "MH"), ("V902", "REPRO"), ("V903", "STD"), ("V904", "SUD")]
UNLISTED = {"V139", "00071015523"}
PLACES = [("D10", ""), ("D11", ""), ("D12", ""), ("D90", "MH"), ("D91", "REPRO")]
DRUGS = [(NDC, f"000710{number:05d}", "") for number in range(15500, 15524)] + [(RXNORM, str(990000000 // 100 + n), "") for n in range(20)]
DRUGS += [(NDC, "00049490066", "MH"), (NDC, "50419040201", "REPRO"), (RXNORM, "9911111", "HIV")]
LABS = ["718-7", "2345-7", "4548-4", "2093-3", "789-8"]
SHARE = 9  # every ninth row is sensitive by its visit or drug


@dataclass(frozen=True)
class FeedRow:
    resource: dict[str, Any]
    sensitive: bool


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def rows() -> Iterator[FeedRow]:
    """The feed: places, 200 visits, a laboratory result of each, and 150 prescriptions."""
    for code, _ in PLACES:
        yield FeedRow({"resourceType": "Location", "id": f"feed-{code}", "type": [concept(DEPARTMENTS, code)]}, False)
    ordinary = [code for code, label in VISIT_TYPES if not label]
    sensitive = [code for code, label in VISIT_TYPES if label]
    for number in range(200):
        visit = sensitive[number // SHARE % len(sensitive)] if number % SHARE == 0 else ordinary[number % len(ordinary)]
        hidden_place = number % SHARE == 1
        place, _ = PLACES[3 + number % 2] if hidden_place else PLACES[number % 3]
        is_sensitive = number % SHARE == 0 or hidden_place
        subject = {"reference": f"Patient/{PATIENT}"}
        yield FeedRow({
            "resourceType": "Encounter", "id": f"feed-v{number}", "status": "finished", "subject": subject,
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}, "type": [concept(VISITS, visit)],
            "location": [{"location": {"reference": f"Location/feed-{place}"}}], "period": {"start": "2026-05-01T09:00:00-05:00"},
        }, is_sensitive)  # fmt: skip
        yield FeedRow({
            "resourceType": "Observation", "id": f"feed-o{number}", "status": "final", "subject": subject,
            "category": [concept("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory")],
            "code": concept(LOINC, LABS[number % len(LABS)]), "encounter": {"reference": f"Encounter/feed-v{number}"},
        }, is_sensitive)  # fmt: skip
    for number in range(150):
        plain = [drug for drug in DRUGS if not drug[2]]
        system, code, label = DRUGS[-1 - number // SHARE % 3] if number % SHARE == 0 else plain[number % len(plain)]
        yield FeedRow({
            "resourceType": "MedicationRequest", "id": f"feed-m{number}", "status": "active", "intent": "order",
            "subject": {"reference": f"Patient/{PATIENT}"}, "medicationCodeableConcept": concept(system, code),
        }, bool(label))  # fmt: skip


def own_lists() -> str:
    """The institution's lists as one CSV file."""
    lines = ["system,code,tier,label,source,reviewed,reviewer,clinical_reviewer,display"]
    known = [(VISITS, *one) for one in VISIT_TYPES] + [(DEPARTMENTS, *one) for one in PLACES] + DRUGS
    for system, code, label in known:
        if code not in UNLISTED:
            lines.append(f"{system},{code},{'sensitive' if label else 'ordinary'},{label},clinic tables,2026-11-29,A. Lee,B. Ode,")
    return "\n".join(lines) + "\n"
