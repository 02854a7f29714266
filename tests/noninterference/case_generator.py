"""Generates test cases: what a caller sees, and two sets of hidden data, one for each server.

The hidden sets are drawn independently or as variants of each other.  The tables of :mod:`tests.noninterference.oracle`
decide what is visible and what is hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.noninterference.hidden_parts import STEP, Edits
from tests.noninterference.hidden_rows import HiddenRows
from tests.noninterference.oracle import BORN, CALLERS, CLASSES, FACTS, HIDDEN, OWNED, ROWS, SHOWN, START
from tests.noninterference.paired_server import SECOND, Caller, Write
from tests.noninterference.rare_secrets import RareSecrets
from tests.noninterference.resource_factory import (
    CLINICIAN_HOLDS,
    DATES,
    IG,
    LABELLED_DRUGS,
    LABELLED_LAB,
    SENSITIVE_PLACES,
    VALUES,
    VITALS,
    Json,
    Recipes,
    ref,
    restriction,
)

# Leak channels known to be open, which the generated cases avoid.  There are none.
OPEN: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Secret:
    """One difference between the servers that the caller must not notice: hidden writes and edits of hidden elements, per server."""

    kind: str
    writes: tuple[tuple[Write, ...], tuple[Write, ...]] = ((), ())
    edits: tuple[Edits, Edits] = ((), ())

    def __str__(self) -> str:
        return "\n".join(f"  {self.kind}, world {i + 1}: {list(self.writes[i])} {list(self.edits[i])}" for i in (0, 1))


@dataclass(frozen=True)
class Case:
    """Visible data and two sets of hidden data.  ``late`` is written while the caller sends requests."""

    seed: int
    caller: Caller
    shown: tuple[Write, ...]
    secrets: tuple[Secret, ...]
    late: tuple[Secret, ...]

    def writes(self, world: int) -> list[Write]:
        """Return all writes of the feed before the first request, sorted by time."""
        edits: dict[str, list[tuple[str, Any]]] = {}
        for secret in self.secrets:
            for name, element, value in secret.edits[world]:
                edits.setdefault(name, []).append((element, value))
        hidden = [write for secret in self.secrets for write in secret.writes[world]]
        every = [*FACTS, *(_edited(write, edits.get(write.name, ())) for write in (*self.shown, *hidden))]
        return sorted(every, key=lambda write: write.at)

    def hidden(self) -> list[Write]:
        """Return the hidden writes of both servers.  Each hidden element is returned as a row that contains only that element."""
        secrets = (*self.secrets, *self.late)
        found = [write for secret in secrets for writes in secret.writes for write in writes]
        for secret in secrets:
            for edits in secret.edits:
                for name, element, value in edits:
                    type, _, id = name.partition("/")
                    found.append(Write(0, type, id, {"resourceType": type, element: [value] if element == "contained" else value}))
        return found

    def standing(self) -> dict[str, Write]:
        """Return the newest write of every visible row that is not deleted."""
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
        if element == "contained" and isinstance(kept, list):
            resource[element] = [{**kept[0], **value}]
        elif isinstance(kept, list):
            resource[element] = [*kept, *value] if element != "result" else [*value, *kept]
        elif isinstance(kept, dict):
            resource[element] = {**kept, **value}
        else:
            resource[element] = value
    return replace(write, resource=resource)


class Drawing(HiddenRows, RareSecrets):
    """Draws one case."""

    def __init__(self, seed: int, caller: Caller, open: frozenset[str] = OPEN) -> None:
        self.caller = caller
        self.open = open
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
        secrets += self._touches(self.random.randint(4, 8))
        late = [self._secret() for _ in range(2)]
        if seed // len(CALLERS) % 2:
            secrets += [Secret(kind, sides) for kind, sides in self.rare().items()]
        return Case(seed, self.caller, tuple(self.shown), tuple(secrets), tuple(late))

    def _word(self) -> str:
        self._words += 1
        return ("zq" if self.hidden_now else "ord") + f"{self.random.getrandbits(36):09x}"

    def person(self) -> str:
        return self.caller.patient or self.r.pick("teen", "child", "adult")

    def other(self) -> str:
        """Return a patient other than the caller's."""
        return self.r.pick(*sorted(set(BORN) - {self.caller.patient}))

    def some(self, type: str, most: int) -> tuple[str, ...]:
        """Return up to ``most`` random visible rows of a type, without deleted ones."""
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
            at += STEP
            patient = self.person()
            resource = ROWS[name](self, patient)
            type, id = resource["resourceType"], f"v{number}"
            patients[f"{type}/{id}"] = patient
            self.shown.append(Write(at, type, id, resource))
            if self.caller.patient or patient == "teen":
                self.names.append(f"{type}/{id}")
        for write in list(self.shown):
            fate = self.random.random()
            at += STEP
            if fate < 0.08 and write.type in ("MedicationStatement", "Coverage", "AllergyIntolerance"):
                self.shown.append(Write(at, write.type, write.id, None))
                self.names.remove(write.name) if write.name in self.names else None
            elif fate < 0.35:
                self.shown.append(Write(at, write.type, write.id, self._mutated(write.resource or {})))

    def _mutated(self, resource: Json) -> Json:
        """Return a copy with a slightly different value, date or identifier."""
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
        """Return a time between two visible writes, different on each call."""
        self._ids += 1
        last = max((write.at for write in self.shown), default=START)
        return (
            self.random.randrange(START, last, STEP) + STEP // 2 + self._ids * 1009
            if last > START
            else START + self._ids * 1009 + STEP // 2
        )

    def _id(self) -> str:
        taken = [write.id for write in self.shown]
        self._ids += 1
        # Some hidden ids extend the id of a visible row, so that a caller may try them.
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
        if kind == "moved":
            return self._moved()
        if kind in self.SEQUENCES:
            return self._sequence(kind)
        found: list[Write] = []
        first = self._moment()
        for number, resource in enumerate(self._hidden(kind)):
            type, id = resource["resourceType"], resource.pop("id", None) or self._id()
            at = first + 7 * number * SECOND if "history-relabel" in self.open else self._moment()
            found.append(Write(at, type, id, resource))
            if self.random.random() < 0.3:
                found.append(Write(at + SECOND, type, id, self._mutated(resource)))
            if self.random.random() < 0.15 and type not in ("Encounter", "Consent"):
                found.append(Write(at + 2 * SECOND, type, id, None))
        return tuple(found)

    def _moved(self) -> tuple[Write, ...]:
        """Move a visit from an ordinary to a sensitive place.  An Observation of the visit may be deleted in between."""
        patient, visit, first = self.person(), self._id(), self._moment()
        inside = Write(first + SECOND, "Observation", self._id(), self.r.observation(patient) | {"encounter": ref("Encounter", visit)})
        deleted = (replace(inside, at=inside.at + SECOND, resource=None),) if self.random.random() < 0.5 else ()
        places = (("clinic", first), (self.r.pick(*SENSITIVE_PLACES), first + 3 * SECOND))
        before, after = (Write(at, "Encounter", visit, self.r.encounter(patient, place)) for place, at in places)
        return (before, inside, *deleted, after)

    def _hidden(self, kind: str) -> list[Json]:
        d, r, p = self, self.r, self.person()
        owned = ROWS[r.pick(*OWNED)]
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
                return [owned(d, p) | {"meta": {"security": [r.pick(*CLINICIAN_HOLDS)]}}]
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
                return [r.pick(*CLASSES[self.caller.kind])(d, p)]
            case "other patient":
                row = owned(d, self.other())
                return [self._naming_the_caller(row)]
            case "mixed":
                return [r.account(tuple(sorted({p, *self._strangers(r.pick(1, 2))})))]
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
            case "restricted":
                row = owned(d, p) | {"id": self._id()}
                return [row, restriction(p, self.caller.me, f"{row['resourceType']}/{row['id']}")]
            case "act":
                target = r.pick(*self.names) if self.names else f"Patient/{p}"
                # Who has sent a message also sees what became of it.
                return [r.provenance(f"Patient/{p}" if target.startswith("Communication/") else target, "Practitioner/dr-one")]
        return self._more_hidden(kind, p)

    def _touches(self, number: int) -> list[Secret]:
        """Return secrets inside visible rows or in hidden versions of them, of different kinds as far as rows fit."""
        if self.caller.kind == "PX":
            kinds, standing = ["elements"] * number, ["Patient/grown"] if self.caller.patient == "grown" else []
        else:
            kinds, standing = self.random.sample(_TOUCHES, len(_TOUCHES)), list(self.names)
        found: list[Secret] = []
        for kind in kinds:
            drawn = getattr(self, f"_{kind}")([name for name in standing if self._newest(name)])
            if drawn and len(found) < number:
                found.append(Secret(kind, *drawn))
        return found


_TOUCHES = (
    *("elements", "elements", "elements", "tags", "result", "result", "versions", "versions", "early", "component", "participant"),
    *("concluded", "visit", "repointed", "in_contained", "restricted_result"),
)


def case(seed: int, open: frozenset[str] = OPEN) -> Case:
    """Return the case of a seed.  Successive seeds rotate through the callers."""
    return Drawing(seed, CALLERS[seed % len(CALLERS)], open).case(seed)
