"""The oracle: who the callers are, what they see and what they do not see, by the tables of ``docs/policy.md``.

The way a row is generated decides whether it is hidden.  The server is never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.noninterference.paired_server import DAY, NOW, SECOND, Caller, Write
from tests.noninterference.resource_factory import PLACES, VITALS, Json, coded, grant, ref

if TYPE_CHECKING:
    from tests.noninterference.case_generator import Drawing

# Reports of one result that no case stores, and what one practitioner measured.
_NARROW = "patient/DiagnosticReport.rs?result=Observation/scoped patient/Observation.rs?performer=Practitioner/dr-one"
CALLERS = (
    Caller("parent of a teenager", "PT", "teen", "RelatedPerson/parent-of-teen", "parent"),
    Caller("parent of a child", "PC", "child", "RelatedPerson/parent-of-child", "parent"),
    Caller("adult's standard proxy", "PA", "adult", "RelatedPerson/proxy-of-adult", "proxy"),
    Caller("adult", "AS", "adult", "Patient/adult", "adult"),
    Caller("limited backend", "BE", "", client="limited", scope="system/*.cruds"),
    Caller("parent of a grown child", "PX", "grown", "RelatedPerson/parent-of-grown", "parent"),
    Caller("billing office", "BO", "", "", "billing", scope="user/*.cruds"),
    Caller("adult through a narrow app", "NA", "adult", "Patient/adult", "adult", scope="patient/Observation.rs?category=laboratory"),
    Caller("parent through a narrow app", "SC", "teen", "RelatedPerson/parent-of-teen", "parent", scope=_NARROW),
    Caller("stranger", "PX", "teen", "RelatedPerson/stranger", "stranger"),
)
START = NOW - 40 * DAY
BORN = {
    "teen": "2012-04-18", "child": "2018-06-01", "adult": "1984-03-09",
    "grown": "2008-10-20", "neighbour": "2011-01-05", "elder": "1950-02-02",
    "turning-12": "2014-11-22", "turning-18": "2008-11-22",
}  # fmt: skip


CHILDREN = ("teen", "child", "grown", "turning-12", "turning-18")


def _facts() -> tuple[Write, ...]:
    place = {"status": "active", "mode": "instance"}
    rows: list[Json] = [
        {"resourceType": "Organization", "id": "hospital", "active": True, "name": "Hospital"},
        *({"resourceType": "Practitioner", "id": id, "name": [{"family": id}]} for id in ("dr-one", "dr-two")),
        *({"resourceType": "Location", "id": id, **place, "type": [_role(code)], "name": name} for id, code, name in _SITES),
        *({"resourceType": "Patient", "id": id, "birthDate": born, "name": [{"family": id.title()}]} for id, born in BORN.items()),
        *({"resourceType": "RelatedPerson", "id": f"parent-of-{id}", "patient": ref("Patient", id)} for id in CHILDREN),
        {"resourceType": "RelatedPerson", "id": "proxy-of-adult", "patient": ref("Patient", "adult")},
        *({"id": f"grant-{id}", **grant(id, f"RelatedPerson/parent-of-{id}", "proxy-child", "2020-01-01")} for id in CHILDREN),
        {"id": "grant-adult", **grant("adult", "RelatedPerson/proxy-of-adult", "proxy-adult", "2020-01-01")},
    ]
    return tuple(Write(START - DAY + n * SECOND, row["resourceType"], row["id"], row) for n, row in enumerate(rows))


def _role(code: str) -> Json:
    return coded("http://terminology.hl7.org/CodeSystem/v3-RoleCode", code)


_SITES = (
    ("clinic", "FMC", "Family clinic"), ("laboratory", "OUTLAB", "Laboratory"),
    ("mental-health", "PSY", "Clinic four"), ("drug-treatment", "SURF", "Clinic five"),
)  # fmt: skip
FACTS = _facts()
FACT_NAMES = frozenset(write.name for write in FACTS)


# What every caller of these kinds sees: (drawing, patient) -> resource.
_Draw = Callable[["Drawing", str], Json]
ROWS: dict[str, _Draw] = {
    "lab": lambda d, p: d.r.observation(p, **d.in_visit()),
    "lab of a contained specimen": lambda d, p: d.r.of_specimen(p),
    "lab by dr-one": lambda d, p: d.r.observation(p) | {"performer": [ref("Practitioner", "dr-one")]},
    "lab by dr-two": lambda d, p: d.r.observation(p) | {"performer": [ref("Practitioner", "dr-two")]},
    "vitals": lambda d, p: d.r.observation(p, VITALS, **d.in_visit()),
    "panel": lambda d, p: d.r.panel(p, **d.in_visit()),
    "report": lambda d, p: d.r.report(p, d.some("Observation", 2)),
    "statement": lambda d, p: d.r.statement(p),
    "prescription": lambda d, p: d.r.prescription(p),
    "encounter": lambda d, p: d.r.encounter(p, d.r.pick(*PLACES)),
    "appointment": lambda d, p: d.r.appointment((p,), place=d.r.pick(*PLACES)),
    "immunization": lambda d, p: d.r.immunization(p),
    "account": lambda d, p: d.r.account((p,)),
    "coverage": lambda d, p: d.r.coverage(p),
    "allergy": lambda d, p: d.r.allergy(p),
    "condition": lambda d, p: d.r.condition(p),
    "procedure": lambda d, p: d.r.plain("Procedure", p),
    "order": lambda d, p: d.r.plain("ServiceRequest", p),
    "careteam": lambda d, p: d.r.plain("CareTeam", p),
    "own message": lambda d, p: d.r.message(p, d.caller.me),
    "own act": lambda d, p: d.r.provenance(
        d.r.pick(*d.some("Observation", 9)) if d.some("Observation", 9) else f"Patient/{p}", d.caller.me
    ),
    "relation": lambda d, p: d.r.related(p),
}
_CHART = (
    *("lab", "lab", "lab of a contained specimen", "vitals", "panel", "report", "statement", "prescription", "encounter"),
    *("appointment", "appointment", "immunization", "allergy"),
)
SHOWN: dict[str, tuple[str, ...]] = {
    "PT": (*_CHART, "account", "coverage", "order", "careteam", "own message", "own act"),
    "PC": (*_CHART, "account", "coverage", "condition", "procedure", "order", "own message", "own act"),
    "PA": (*_CHART, "account", "coverage", "condition", "procedure", "order", "own message", "own act"),
    "AS": (*_CHART, "account", "coverage", "condition", "procedure", "relation", "own message", "own act"),
    "BE": (*_CHART, "account", "coverage", "condition", "procedure", "order", "relation"),
    "BO": ("encounter", "encounter", "appointment", "appointment", "account", "account", "coverage", "relation"),
    "NA": ("lab", "lab", "lab", "lab"),
    "SC": ("lab by dr-one", "lab by dr-one", "lab by dr-one"),
    "PX": (),
}
_NOW_HELD = ("held", "withheld", "later")
_FOREIGN = ("other patient", "other patient", "mixed")
_PROXY = ("minor", "thread", "relation", "act", "restricted", "own act on a hidden row", "policy of the caller", "restricted terminology")
_SEQUENCES = ("source deleted", "source replaced", "source re-created")
_LABELS = ("labelled", "labelled", "unclassified", "visit", "moved", "inherited", "inherited", "contained", *_SEQUENCES)
_FILES = ("later file", "named medication")
HIDDEN: dict[str, tuple[str, ...]] = {
    "PT": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "class"),
    "PC": (*_NOW_HELD, *_FOREIGN, *(kind for kind in _PROXY if kind != "own act on a hidden row"), *_FILES),
    "PA": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "class"),
    "AS": (*_NOW_HELD, *_FOREIGN, *_FILES),
    "BE": (*_NOW_HELD, *_LABELS, "mixed", "minor", "class", "later file"),
    "BO": ("class", "class", "visit", "held"),
    "NA": (*_NOW_HELD, *_FOREIGN, "class", "class", "class", "terminology", "terminology"),
    "SC": (*_NOW_HELD, *_FOREIGN, *_LABELS, "class", "class", "class", "terminology", "terminology"),
    "PX": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "ordinary", "ordinary", "ordinary", "class"),
}
# Rows hidden by their data class alone.
CLASSES: dict[str, tuple[_Draw, ...]] = {
    "PT": (ROWS["condition"], ROWS["procedure"], lambda d, p: d.r.observation(p, ("72166-2",), "social-history")),
    "PA": (lambda d, p: d.r.observation(p, ("72166-2",), "social-history"),),
    "BE": (lambda d, p: d.r.message(p, "RelatedPerson/parent-of-teen"), lambda d, p: d.r.grant(p, "RelatedPerson/elsewhere")),
    "BO": (ROWS["condition"], ROWS["lab"], ROWS["statement"], ROWS["allergy"]),
    "SC": (ROWS["lab by dr-two"], ROWS["lab by dr-two"], ROWS["statement"], lambda d, p: d.r.report(p, ("Observation/scoped",))),
    "NA": (ROWS["condition"], ROWS["vitals"], ROWS["panel"], ROWS["statement"], ROWS["encounter"]),
    "PX": (ROWS["condition"], ROWS["procedure"]),
}
OWNED = ("lab", "vitals", "statement", "prescription", "encounter", "appointment", "immunization", "account", "allergy", "report")


def _text(d: Drawing) -> Any:
    return d.r.word()


def _note(d: Drawing) -> Any:
    return [{"text": d.r.word()}]


def _reason(d: Drawing) -> Any:
    return [coded("http://hl7.org/fhir/sid/icd-10-cm", d.r.pick("J45.20", "I10"), display=d.r.word())]


def _narrative(d: Drawing) -> Any:
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{d.r.word()}</p></div>'}


def _performer(d: Drawing) -> Any:
    return [{"actor": ref("Practitioner", d.r.pick("dr-one", "dr-two"))}]


def tags(d: Drawing) -> Any:
    return {"tag": [{"system": "https://tags.example", "code": d.r.word()}], "source": f"https://source.example/{d.r.word()}"}


_FREE = {"text": _narrative, "note": _note}
_NAMED = {"text": _narrative}
_PERSON = {
    "contact": lambda d: [{"name": {"family": d.r.word()}}],
    "telecom": lambda d: [{"system": "email", "value": f"{d.r.word()}@x.example"}],
}
# type -> elements hidden from the caller, with a generator of their values.
REDACTED: dict[str, dict[str, dict[str, Callable[[Drawing], Any]]]] = {
    "PT": {
        "Observation": _FREE,
        "MedicationStatement": {**_FREE, "reasonCode": _reason},
        "MedicationRequest": {**_FREE, "reasonCode": _reason},
        "Encounter": {**_NAMED, "reasonCode": _reason},
        "Appointment": {**_NAMED, "reasonCode": _reason, "description": _text, "comment": _text, "patientInstruction": _text},
        "Immunization": {**_FREE, "reasonCode": _reason, "performer": _performer},
        "DiagnosticReport": {**_NAMED, "presentedForm": lambda d: [{"contentType": "text/plain", "title": d.r.word()}]},
        "Account": {**_NAMED, "description": _text},
        "AllergyIntolerance": _FREE,
        "Patient": _PERSON,
    },
    "PA": {
        "Observation": _FREE, "MedicationStatement": _FREE, "MedicationRequest": _FREE, "Immunization": _FREE, "AllergyIntolerance": _FREE,
        "Condition": _FREE, "Procedure": _FREE, "Encounter": _NAMED, "Patient": _PERSON,
    },
    "BO": {
        "Encounter": {**_NAMED, "reasonCode": _reason},
        "Appointment": {**_NAMED, "reasonCode": _reason, "description": _text, "comment": _text, "patientInstruction": _text},
    },
    "PX": {"Patient": {**_PERSON, "gender": lambda d: d.r.pick("male", "female")}},
}  # fmt: skip
