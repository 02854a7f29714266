"""Cases: what a caller sees, drawn first, and two sets of what he does not, drawn independently or as mutations of each other.

Whether a row is hidden follows here from how it is made (by the tables of ``docs/policy.md``), never from asking the server:
:data:`SHOWN`, :data:`HIDDEN` and :data:`REDACTED` are the oracle.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.twins.recipes import IG, LABELLED_DRUGS, LABELLED_LAB, PHYSICIAN_HOLD, PLACES, SENSITIVE_PLACES, VALUES, VITALS, Json
from tests.twins.recipes import DATES, Recipes, coded, grant, ref
from tests.twins.world import DAY, MINUTE, NOW, SECOND, Caller, Write

CALLERS = (
    Caller("parent of a teenager", "PT", "teen", "RelatedPerson/parent-of-teen", "parent"),
    Caller("parent of a child", "PC", "child", "RelatedPerson/parent-of-child", "parent"),
    Caller("adult's standard proxy", "PA", "adult", "RelatedPerson/proxy-of-adult", "proxy"),
    Caller("adult", "AS", "adult", "Patient/adult", "adult"),
    Caller("limited backend", "BE", "", client="limited", scope="system/*.cruds"),
    Caller("parent of a grown child", "PX", "grown", "RelatedPerson/parent-of-grown", "parent"),
    Caller("stranger", "PX", "teen", "RelatedPerson/stranger", "stranger"),
)
START = NOW - 40 * DAY
_STEP = 10 * MINUTE
_BORN = {"teen": "2012-04-18", "child": "2018-06-01", "adult": "1984-03-09", "grown": "2008-10-20", "neighbour": "2011-01-05", "elder": "1950-02-02"}
Edits = tuple[tuple[str, str, Any], ...]  # (Type/id, element, value or addition)


@dataclass(frozen=True)
class Secret:
    """One difference the caller must not notice: per world, writes he does not see and edits of elements he does not see."""

    kind: str
    writes: tuple[tuple[Write, ...], tuple[Write, ...]] = ((), ())
    edits: tuple[Edits, Edits] = ((), ())

    def __str__(self) -> str:
        return "\n".join(f"  {self.kind}, world {i + 1}: {list(self.writes[i])} {list(self.edits[i])}" for i in (0, 1))


@dataclass(frozen=True)
class Case:
    """A visible store and what is hidden in either world; ``late`` happens while the caller is asking."""

    seed: int
    caller: Caller
    shown: tuple[Write, ...]
    secrets: tuple[Secret, ...]
    late: tuple[Secret, ...]

    def writes(self, world: int) -> list[Write]:
        """Everything the feed writes before the caller comes, in order."""
        edits: dict[str, list[tuple[str, Any]]] = {}
        for secret in self.secrets:
            for name, element, value in secret.edits[world]:
                edits.setdefault(name, []).append((element, value))
        hidden = [write for secret in self.secrets for write in secret.writes[world]]
        every = [*FACTS, *(_edited(write, edits.get(write.name, ())) for write in self.shown), *hidden]
        return sorted(every, key=lambda write: write.at)

    def hidden(self) -> list[Write]:
        """All writes of hidden rows, of both worlds, and hidden elements as rows that hold nothing else."""
        secrets = (*self.secrets, *self.late)
        found = [write for secret in secrets for writes in secret.writes for write in writes]
        for secret in secrets:
            for edits in secret.edits:
                for name, element, value in edits:
                    type, _, id = name.partition("/")
                    found.append(Write(0, type, id, {"resourceType": type, element: value}))
        return found

    def standing(self) -> dict[str, Write]:
        """The newest write of every visible row that is not deleted."""
        newest = {write.name: write for write in self.shown}
        return {name: write for name, write in newest.items() if write.resource is not None}

    def without(self, secret: Secret) -> Case:
        return replace(self, secrets=tuple(s for s in self.secrets if s is not secret), late=tuple(s for s in self.late if s is not secret))


def _edited(write: Write, edits: Iterable[tuple[str, Any]]) -> Write:
    if write.resource is None:
        return write
    resource = copy.deepcopy(write.resource)
    for element, value in edits:
        kept = resource.get(element)
        if isinstance(kept, list):
            resource[element] = [*kept, *value] if element != "result" else [*value, *kept]
        elif isinstance(kept, dict):
            resource[element] = {**kept, **value}
        else:
            resource[element] = value
    return replace(write, resource=resource)


def _facts() -> tuple[Write, ...]:
    place = {"status": "active", "mode": "instance"}
    rows: list[Json] = [
        {"resourceType": "Organization", "id": "hospital", "active": True, "name": "Hospital"},
        *({"resourceType": "Practitioner", "id": id, "name": [{"family": id}]} for id in ("dr-one", "dr-two")),
        *({"resourceType": "Location", "id": id, **place, "type": [_role(code)], "name": name} for id, code, name in _PLACES),
        *({"resourceType": "Patient", "id": id, "birthDate": born, "name": [{"family": id.title()}]} for id, born in _BORN.items()),
        *({"resourceType": "RelatedPerson", "id": f"parent-of-{id}", "patient": ref("Patient", id)} for id in ("teen", "child", "grown")),
        {"resourceType": "RelatedPerson", "id": "proxy-of-adult", "patient": ref("Patient", "adult")},
        *({"id": f"grant-{id}", **grant(id, f"RelatedPerson/parent-of-{id}", "proxy-child", "2020-01-01")} for id in ("teen", "child", "grown")),
        {"id": "grant-adult", **grant("adult", "RelatedPerson/proxy-of-adult", "proxy-adult", "2020-01-01")},
    ]
    return tuple(Write(START - DAY + n * SECOND, row["resourceType"], row["id"], row) for n, row in enumerate(rows))


def _role(code: str) -> Json:
    return coded("http://terminology.hl7.org/CodeSystem/v3-RoleCode", code)


_PLACES = (
    ("clinic", "FMC", "Family clinic"), ("laboratory", "OUTLAB", "Laboratory"),
    ("mental-health", "PSY", "Clinic four"), ("drug-treatment", "SURF", "Clinic five"),
)  # fmt: skip
FACTS = _facts()
FACT_NAMES = frozenset(write.name for write in FACTS)

# What every caller of these kinds sees: (the person in context) -> a resource.  ``d`` is the drawing in progress.
_Draw = Callable[["Drawing", str], Json]
_ROWS: dict[str, _Draw] = {
    "lab": lambda d, p: d.r.observation(p, **d.in_visit()),
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
    "own act": lambda d, p: d.r.provenance(d.r.pick(*d.some("Observation", 9)) if d.some("Observation", 9) else f"Patient/{p}", d.caller.me),
    "relation": lambda d, p: d.r.related(p),
}
_CHART = ("lab", "lab", "vitals", "panel", "report", "statement", "prescription", "encounter", "appointment", "immunization", "allergy")
SHOWN: dict[str, tuple[str, ...]] = {
    "PT": (*_CHART, "account", "coverage", "order", "careteam", "own message", "own act"),
    "PC": (*_CHART, "account", "coverage", "condition", "procedure", "order", "own message", "own act"),
    "PA": (*_CHART, "coverage", "condition", "procedure", "order", "own message", "own act"),
    "AS": (*_CHART, "account", "coverage", "condition", "procedure", "relation", "own message", "own act"),
    "BE": (*_CHART, "account", "coverage", "condition", "procedure", "order", "relation"),
    "PX": (),
}
_NOW_HELD = ("held", "withheld", "later")
_FOREIGN = ("other patient", "other patient", "mixed")
_PROXY = ("minor", "thread", "relation", "act")
_LABELS = ("labelled", "labelled", "unclassified", "visit")
HIDDEN: dict[str, tuple[str, ...]] = {
    "PT": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "class"),
    "PC": (*_NOW_HELD, *_FOREIGN, *_PROXY),
    "PA": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "class"),
    "AS": (*_NOW_HELD, *_FOREIGN),
    "BE": (*_NOW_HELD, *_LABELS, "mixed", "minor", "class"),
    "PX": (*_NOW_HELD, *_FOREIGN, *_PROXY, *_LABELS, "ordinary", "ordinary", "ordinary", "class"),
}
# Rows hidden by their data class alone.
_CLASSES: dict[str, tuple[_Draw, ...]] = {
    "PT": (_ROWS["condition"], _ROWS["procedure"], lambda d, p: d.r.observation(p, ("72166-2",), "social-history")),
    "PA": (_ROWS["account"], lambda d, p: d.r.observation(p, ("72166-2",), "social-history")),
    "BE": (lambda d, p: d.r.message(p, "RelatedPerson/parent-of-teen"), lambda d, p: d.r.grant(p, "RelatedPerson/elsewhere")),
    "PX": (_ROWS["condition"], _ROWS["procedure"]),
}
_OWNED = ("lab", "vitals", "statement", "prescription", "encounter", "appointment", "immunization", "account", "allergy", "report")


def _text(d: Drawing) -> Any:
    return d.r.word()


def _note(d: Drawing) -> Any:
    return [{"text": d.r.word()}]


def _reason(d: Drawing) -> Any:
    return [coded("http://hl7.org/fhir/sid/icd-10-cm", d.r.pick("J45.20", "I10"), display=d.r.word())]


def _narrative(d: Drawing) -> Any:
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{d.r.word()}</p></div>'}


def _tags(d: Drawing) -> Any:
    return {"tag": [{"system": "https://tags.example", "code": d.r.word()}], "source": f"https://source.example/{d.r.word()}"}


_FREE = {"text": _narrative, "note": _note}
_NAMED = {"text": _narrative}
_PERSON = {"contact": lambda d: [{"name": {"family": d.r.word()}}], "telecom": lambda d: [{"system": "email", "value": f"{d.r.word()}@x.example"}]}
# type -> elements the caller does not get, and what they may hold.
REDACTED: dict[str, dict[str, dict[str, Callable[[Drawing], Any]]]] = {
    "PT": {
        "Observation": _FREE,
        "MedicationStatement": {**_FREE, "reasonCode": _reason},
        "MedicationRequest": {**_FREE, "reasonCode": _reason},
        "Encounter": {**_NAMED, "reasonCode": _reason},
        "Appointment": {**_NAMED, "reasonCode": _reason, "description": _text, "comment": _text, "patientInstruction": _text},
        "Immunization": {**_FREE, "reasonCode": _reason, "performer": lambda d: [{"actor": ref("Practitioner", d.r.pick("dr-one", "dr-two"))}]},
        "DiagnosticReport": {**_NAMED, "presentedForm": lambda d: [{"contentType": "text/plain", "title": d.r.word()}]},
        "Account": {**_NAMED, "description": _text},
        "AllergyIntolerance": _FREE,
        "Patient": _PERSON,
    },
    "PA": {
        "Observation": _FREE, "MedicationStatement": _FREE, "MedicationRequest": _FREE, "Immunization": _FREE, "AllergyIntolerance": _FREE,
        "Condition": _FREE, "Procedure": _FREE, "Encounter": _NAMED, "Patient": _PERSON,
    },
    "PX": {"Patient": {**_PERSON, "gender": lambda d: d.r.pick("male", "female")}},
}  # fmt: skip


class Drawing:
    """A case in the making."""

    def __init__(self, seed: int, caller: Caller) -> None:
        self.caller = caller
        self.random = Random(f"{seed} {caller.name}")
        self._words = 0
        self.r = Recipes(self.random, self._word)
        self.hidden_now = False
        self.names: list[str] = []
        self.shown: list[Write] = []
        self._ids = 0

    def case(self, seed: int) -> Case:
        self._draw_shown()
        self.hidden_now = True
        secrets = [self._secret() for _ in range(self.random.randint(4, 9))]
        secrets += [found for _ in range(self.random.randint(3, 7)) if (found := self._touch())]
        late = [self._secret() for _ in range(2)]
        return Case(seed, self.caller, tuple(self.shown), tuple(secrets), tuple(late))

    def _word(self) -> str:
        self._words += 1
        return ("zq" if self.hidden_now else "ord") + f"{self.random.getrandbits(36):09x}"

    def person(self) -> str:
        return self.caller.patient or self.r.pick("teen", "child", "adult")

    def other(self) -> str:
        """Somebody whose record is not the caller's."""
        return self.r.pick(*({"adult", "child", "elder", "neighbour", "teen"} - {self.caller.patient}) and sorted(set(_BORN) - {self.caller.patient}))

    def some(self, type: str, most: int) -> tuple[str, ...]:
        """A few visible rows of a type that stand."""
        known = [name for name in self.names if name.startswith(type + "/")]
        return tuple(self.random.sample(known, min(len(known), self.random.randint(1, most)))) if known else ()

    def in_visit(self) -> Json:
        visits = [] if self.hidden_now else self.some("Encounter", 1)
        return {"encounter": {"reference": visits[0]}} if visits and self.random.random() < 0.4 else {}

    def _draw_shown(self) -> None:
        menu = SHOWN[self.caller.kind]
        order = [*menu, *(self.r.pick(*menu) for _ in range(self.random.randint(3, 10)))] if menu else []
        at = START
        patients: dict[str, str] = {}
        for number, name in enumerate(order):
            at += _STEP
            patient = self.person()
            resource = _ROWS[name](self, patient)
            type, id = resource["resourceType"], f"v{number}"
            patients[f"{type}/{id}"] = patient
            self.shown.append(Write(at, type, id, resource))
            if self.caller.kind != "BE" or patient == "teen":
                self.names.append(f"{type}/{id}")
        for write in list(self.shown):
            fate = self.random.random()
            at += _STEP
            if fate < 0.08 and write.type in ("MedicationStatement", "Coverage", "AllergyIntolerance"):
                self.shown.append(Write(at, write.type, write.id, None))
                self.names.remove(write.name) if write.name in self.names else None
            elif fate < 0.35:
                self.shown.append(Write(at, write.type, write.id, self._mutated(write.resource or {})))

    def _mutated(self, resource: Json) -> Json:
        """The same row with a value, a date or an identifier a little different."""
        changed = copy.deepcopy(resource)
        if "valueQuantity" in changed and self.random.random() < 0.6:
            changed["valueQuantity"]["value"] = self.r.pick(*VALUES, changed["valueQuantity"]["value"] + 1)
        elif "identifier" in changed and self.random.random() < 0.6:
            changed["identifier"] = self.r.identifier()
        else:
            for name in ("effectiveDateTime", "authoredOn", "recordedDate", "occurrenceDateTime", "onsetDateTime"):
                if name in changed:
                    changed[name] = self.r.pick(*DATES)
        return changed

    def _moment(self) -> int:
        """Some instant between two visible writes, never the same twice."""
        self._ids += 1
        last = max((write.at for write in self.shown), default=START)
        return self.random.randrange(START, last, _STEP) + _STEP // 2 + self._ids * 1009 if last > START else START + self._ids * 1009 + _STEP // 2

    def _id(self) -> str:
        taken = [write.id for write in self.shown]
        self._ids += 1
        # An id of a visible row of another type is as good as any, and a caller may try it.
        return self.r.pick(*taken) + f".{self._ids}" if taken and self.random.random() < 0.2 else f"h{self._ids}{self._word()}"

    def _secret(self) -> Secret:
        kind = self.r.pick(*HIDDEN[self.caller.kind])
        one = self._rows(kind)
        fate = self.random.random()
        if fate < 0.3:
            sides = (one, ())
        elif fate < 0.65:
            sides = (one, tuple(replace(write, resource=self._mutated(write.resource) if write.resource else None) for write in one))
        elif fate < 0.85:
            sides = (one, self._rows(kind))
        else:
            sides = (one, self._rows(self.r.pick(*HIDDEN[self.caller.kind])))
        return Secret(kind, sides if self.random.random() < 0.5 else (sides[1], sides[0]))

    def _rows(self, kind: str) -> tuple[Write, ...]:
        found: list[Write] = []
        for resource in self._hidden(kind):
            type, id, at = resource["resourceType"], resource.pop("id", None) or self._id(), self._moment()
            found.append(Write(at, type, id, resource))
            if self.random.random() < 0.3:
                found.append(Write(at + SECOND, type, id, self._mutated(resource)))
            if self.random.random() < 0.15 and type != "Encounter":
                found.append(Write(at + 2 * SECOND, type, id, None))
        return tuple(found)

    def _hidden(self, kind: str) -> list[Json]:
        d, r, p = self, self.r, self.person()
        owned = _ROWS[r.pick(*_OWNED)]
        secret = f"{IG}/StructureDefinition/"
        match kind:
            case "ordinary":
                return [owned(d, p)]
            case "labelled":
                return [r.pick(
                    r.observation(p, LABELLED_LAB), r.statement(p, LABELLED_DRUGS), r.prescription(p, LABELLED_DRUGS),
                    r.appointment((p,), "142"), r.allergy(p, LABELLED_DRUGS), r.condition(p, "F32.1"),
                )]  # fmt: skip
            case "unclassified":
                return [r.pick(r.observation(p, ("X-1", "X-2")), r.statement(p, ("999999998",)), r.appointment((p,), "9998"))]
            case "held":
                state = {"status": r.pick("preliminary", "registered")}
                return [r.pick(r.observation(p) | state, r.report(p) | state, r.encounter(p) | {"status": "entered-in-error"})]
            case "withheld":
                return [owned(d, p) | {"meta": {"security": [PHYSICIAN_HOLD]}}]
            case "later":
                release = {"url": f"{secret}release-at", "valueInstant": "2027-05-01T00:00:00Z"}
                row = r.pick(r.observation(p), r.statement(p), r.immunization(p))
                return [row | {"extension": [release]}]
            case "visit":
                place = r.pick(*SENSITIVE_PLACES)
                visit = self._id()
                inside = r.pick(r.observation(p), r.observation(p, VITALS)) | {"encounter": ref("Encounter", visit)}
                return [r.encounter(p, place) | {"id": visit}, inside, r.appointment((p,), place=place)]
            case "class":
                return [r.pick(*_CLASSES[self.caller.kind])(d, p)]
            case "other patient":
                row = owned(d, self.other())
                if row["resourceType"] == "Observation" and self.caller.me:
                    row["performer"] = [{"reference": self.caller.me}]
                return [row]
            case "mixed":
                return [r.account(tuple(sorted({p, self.other() if self.caller.patient else "elder"})))]
            case "minor":
                flag = {"extension": [{"url": f"{secret}minor-consented", "valueBoolean": True}]}
                visit = self._id()
                inside = r.observation(p) | {"encounter": ref("Encounter", visit)}
                return [r.encounter(p) | flag | {"id": visit}, inside, r.account((p,), **flag)]
            case "thread":
                return [r.message(p, "RelatedPerson/elsewhere") | ({"about": [{"reference": r.pick(*self.names)}]} if self.names else {})]
            case "relation":
                other = self._id()
                return [r.related(p) | {"id": other}, r.grant(p, f"RelatedPerson/{other}")]
            case "act":
                return [r.provenance(r.pick(*self.names) if self.names else f"Patient/{p}", "Practitioner/dr-one")]
        raise AssertionError(kind)

    def _touch(self) -> Secret | None:
        """A secret inside a row that is visible, or in versions of it that are not."""
        kind = self.r.pick("elements", "elements", "tags", "result", "result", "versions", "versions", "early", "component", "participant", "concluded")
        standing = [name for name in self.names]
        if self.caller.kind == "PX":
            kind, standing = "elements", ["Patient/grown"] if self.caller.patient == "grown" else []
        found = getattr(self, f"_{kind}")([name for name in standing if self._newest(name)])
        return found and Secret(kind, *found) if found else None

    def _newest(self, name: str) -> Write | None:
        return next((write for write in reversed((*FACTS, *self.shown)) if write.name == name), None)

    def _pick_of(self, names: list[str], *types: str) -> str | None:
        fit = [name for name in names if name.partition("/")[0] in types]
        return self.r.pick(*fit) if fit else None

    def _elements(self, names: list[str]) -> Any:
        table = REDACTED.get(self.caller.kind, {})
        name = self._pick_of([*names, *([f"Patient/{self.caller.patient}"] if "Patient" in table else [])], *table)
        if name is None:
            return None
        element = self.r.pick(*table[name.partition("/")[0]])
        made = table[name.partition("/")[0]][element]
        sides: tuple[Edits, Edits] = (((name, element, made(self)),), ((name, element, made(self)),) if self.random.random() < 0.7 else ())
        return ((), ()), sides

    def _tags(self, names: list[str]) -> Any:
        name = self.r.pick(*names) if names else None
        return name and (((), ()), (((name, "meta", _tags(self)),), ((name, "meta", _tags(self)),) if self.random.random() < 0.5 else ()))

    def _result(self, names: list[str]) -> Any:
        """A report that lists a result which the caller does not see: other ones in the other world, or one that does not exist."""
        name = self._pick_of(names, "DiagnosticReport")
        if name is None:
            return None
        rows = [self._hidden_result(name) for _ in range(2)]
        edits = [((name, "result", [{"reference": row.name}]),) for row in rows]
        fate = self.random.random()
        if fate < 0.4:
            return ((rows[0],), ()), (edits[0], ())
        if fate < 0.7:
            return ((rows[0],), (rows[1],)), (edits[0], edits[1])
        return ((rows[0],), ()), (edits[0], edits[0])

    def _hidden_result(self, report: str) -> Write:
        resource = (self._newest(report) or Write(0, "", "", {})).resource or {}
        patient = resource["subject"]["reference"].removeprefix("Patient/")
        kinds: list[Json] = [self.r.observation(patient) | {"status": "preliminary"}]
        kinds += [self.r.observation(patient, LABELLED_LAB)] if self.caller.kind in ("PT", "PA", "BE") else []
        kinds += [self.r.observation(self.other())] if self.caller.kind != "BE" else []
        return Write(self._moment(), "Observation", self._id(), self.r.pick(*kinds))

    def _concluded(self, names: list[str]) -> Any:
        """A report of a result that the caller does not see, with a conclusion that speaks of it."""
        name = self._pick_of(names, "DiagnosticReport")
        if name is None:
            return None
        rows = []
        for _ in range(2):
            row = self._hidden_result(name)
            if row.resource and row.resource["subject"] != ((self._newest(name) or row).resource or {})["subject"]:
                return None
            rows.append(row)
        edits = [((name, "result", [{"reference": row.name}]), (name, "conclusion", self.r.word())) for row in rows]
        return ((rows[0],), (rows[1],)), tuple(edits)

    def _component(self, names: list[str]) -> Any:
        panels = [name for name in names if "component" in ((self._newest(name) or Write(0, "", "", {})).resource or {})]
        if not panels or self.caller.kind not in ("PT", "PA", "BE"):
            return None
        name = self.r.pick(*panels)
        parts = [[{"code": coded("http://loinc.org", self.r.pick(*LABELLED_LAB)), "valueQuantity": self.r.quantity()}] for _ in range(2)]
        return ((), ()), (((name, "component", parts[0]),), ((name, "component", parts[1]),) if self.random.random() < 0.5 else ())

    def _participant(self, names: list[str]) -> Any:
        name = self._pick_of(names, "Appointment")
        if name is None or self.caller.kind == "BE":
            return None
        extra = [[{"actor": ref("Patient", self.other()), "status": "accepted"}] for _ in range(2)]
        return ((), ()), (((name, "participant", extra[0]),), ((name, "participant", extra[1]),) if self.random.random() < 0.5 else ())

    def _versions(self, names: list[str]) -> Any:
        """Versions after the last visible one that differ from it only in what the caller does not see."""
        table = REDACTED.get(self.caller.kind, {})
        name = self._pick_of(names, *table) if table else (self.r.pick(*names) if names else None)
        newest = self._newest(name) if name else None
        if newest is None or newest.resource is None or newest.type == "Patient":
            return None
        made = table.get(newest.type)
        last = max(write.at for write in self.shown)
        more = []
        for number in range(self.random.randint(1, 2)):
            element = self.r.pick(*made) if made else "meta"
            value = made[element](self) if made else _tags(self)
            more.append(Write(last + self._moment() - START + number * SECOND, newest.type, newest.id, newest.resource | {element: value}))
        return (tuple(sorted(more, key=lambda write: write.at)), ()), ((), ())

    def _early(self, names: list[str]) -> Any:
        """Versions not yet final, before the first visible one."""
        name = self._pick_of(names, "Observation", "DiagnosticReport")
        first = next((write for write in self.shown if write.name == name), None)
        if first is None or first.resource is None:
            return None
        before = first.at - self.random.choice((_STEP // 3, 4 * _STEP // 3, 10 * _STEP))
        row = Write(before + self._ids * 1009, first.type, first.id, self._mutated(first.resource) | {"status": "preliminary"})
        self._ids += 1
        return ((row,), ()), ((), ())


def case(seed: int) -> Case:
    """The case of a seed: the callers take turns."""
    return Drawing(seed, CALLERS[seed % len(CALLERS)]).case(seed)
