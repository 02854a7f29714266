"""Secrets inside visible rows: hidden elements, hidden versions, references to hidden rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from tests.noninterference.oracle import BORN, FACTS, REDACTED, START, tags
from tests.noninterference.paired_server import MINUTE, SECOND, Write
from tests.noninterference.resource_factory import IG, LABELLED_LAB, Json, coded, ref, restriction
from tests.noninterference.secret_draws import SecretDraws

STEP = 10 * MINUTE
Edits = tuple[tuple[str, str, Any], ...]  # (Type/id, element, value to set or to add)


class Touches(SecretDraws):
    """Draws secrets inside visible rows.  Each method returns writes and edits for both servers, or None if no row fits."""

    shown: list[Write]
    _ids: int

    @abstractmethod
    def _mutated(self, resource: Json) -> Json: ...

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
        return name and (((), ()), (((name, "meta", tags(self)),), ((name, "meta", tags(self)),) if self.random.random() < 0.5 else ()))

    def _result(self, names: list[str]) -> Any:
        """Add a hidden result to a report.  The other server has another hidden result, none, or a reference without a target."""
        name = self._pick_of(names, "DiagnosticReport")
        if name is None:
            return None
        fate = self.random.random()
        if fate < 0.3:  # the same reference on both servers, to a row that may exist on only one of them
            row = self._hidden_result(name, foreign=bool(self.caller.patient))
            edit = ((name, "result", [{"reference": row.name}]),)
            return ((row,), () if self.caller.patient else (row,)), (edit, edit)
        rows = [self._hidden_result(name) for _ in range(2)]
        edits = [((name, "result", [{"reference": row.name}]),) for row in rows]
        fate = self.random.random()
        if fate < 0.4:
            return ((rows[0],), ()), (edits[0], ())
        if fate < 0.7 or "pointer-search" in self.open:
            return ((rows[0],), (rows[1],)), (edits[0], edits[1])
        return ((rows[0],), ()), (edits[0], edits[0])

    def _visit(self, names: list[str]) -> Any:
        """Add a hidden Encounter to a visible Observation.  Its status hides the Encounter only, not the Observation."""
        name = self._pick_of(names, "Observation")
        if name is None or "pointer-search" in self.open:
            return None
        resource = (self._newest(name) or Write(0, "", "", {})).resource or {}
        if "encounter" in resource:  # the Encounter is visible
            return None
        patient = resource["subject"]["reference"].removeprefix("Patient/")
        row = Write(self._moment(), "Encounter", self._id(), self.r.encounter(patient) | {"status": "entered-in-error"})
        return ((row,), (row,)), (((name, "encounter", {"reference": row.name}),), ())

    def _hidden_result(self, report: str, foreign: bool = False) -> Write:
        resource = (self._newest(report) or Write(0, "", "", {})).resource or {}
        patient = resource["subject"]["reference"].removeprefix("Patient/")
        kinds: list[Json] = [self.r.observation(patient) | {"status": "preliminary"}]
        kinds += [self.r.observation(patient, LABELLED_LAB)] if self.caller.kind in ("PT", "PA", "BE") else []
        kinds += [self.r.observation(self.other())] if self.caller.patient and "pointer-search" not in self.open else []
        kinds = [self.r.observation(self.other())] if foreign else kinds
        first = next(write.at for write in self.shown if write.name == report)
        at = first - self._ids * 1009 - SECOND if "history-relabel" in self.open else self._moment()
        return Write(at, "Observation", self._id(), self.r.pick(*kinds))

    def _concluded(self, names: list[str]) -> Any:
        """Add a hidden result to a report, and a conclusion about that result."""
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
        if name is None or not self.caller.patient or "pointer-search" in self.open:
            return None
        others = [
            other for other in sorted(BORN) if other > self.caller.patient or ("place" not in self.open and other != self.caller.patient)
        ]
        if not others:
            return None
        extra = [[{"actor": ref("Patient", self.r.pick(*others)), "status": "accepted"}] for _ in range(2)]
        return ((), ()), (((name, "participant", extra[0]),), ((name, "participant", extra[1]),) if self.random.random() < 0.5 else ())

    def _versions(self, names: list[str]) -> Any:
        """Add versions after the last visible one that differ from it only in hidden parts."""
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
            value = made[element](self) if made else tags(self)
            more.append(Write(last + self._moment() - START + number * SECOND, newest.type, newest.id, newest.resource | {element: value}))
        return (tuple(sorted(more, key=lambda write: write.at)), ()), ((), ())

    def _repointed(self, names: list[str]) -> Any:
        """Add a version after the last visible one that only adds a reference to a hidden row."""
        name = self._pick_of(names, "DiagnosticReport")
        newest = self._newest(name) if name else None
        if newest is None or newest.resource is None or not self.caller.patient or "pointer-version" in self.open:
            return None
        row = self._hidden_result(newest.name, foreign=True)
        result = [*newest.resource.get("result", ()), {"reference": row.name}]
        last = max(write.at for write in self.shown)
        return ((row, Write(last + self._moment() - START, newest.type, newest.id, newest.resource | {"result": result})), ()), ((), ())

    def _early(self, names: list[str]) -> Any:
        """Add a version before the first visible one: a preliminary one, or one that still waits for its release."""
        name = self._pick_of(names, "Observation", "DiagnosticReport")
        first = next((write for write in self.shown if write.name == name), None)
        if first is None or first.resource is None:
            return None
        before = first.at - (self.random.choice((STEP // 3, 4 * STEP // 3, 10 * STEP)) if "place" not in self.open else STEP // 3)
        release = {"url": f"{IG}/StructureDefinition/release-at", "valueInstant": "2027-05-01T00:00:00Z"}
        hidden = {"status": "preliminary"} if self.random.random() < 0.5 else {"extension": [release]}
        row = Write(before + self._ids * 1009, first.type, first.id, self._mutated(first.resource) | hidden)
        self._ids += 1
        return ((row,), ()), ((), ())

    def _in_contained(self, names: list[str]) -> Any:
        """Add a note to a resource inside a visible row."""
        fit = [name for name in names if "contained" in ((self._newest(name) or Write(0, "", "", {})).resource or {})]
        if not fit or self.caller.kind not in ("PT", "PA"):
            return None
        name = self.r.pick(*fit)
        sides = [((name, "contained", {"note": [{"text": self.r.word()}]}),) for _ in range(2)]
        return ((), ()), (sides[0], sides[1] if self.random.random() < 0.5 else ())

    def _restricted_result(self, names: list[str]) -> Any:
        """Add a result to a report that a Consent withholds from the caller, and a conclusion about that result."""
        name = self._pick_of(names, "DiagnosticReport")
        if name is None or not self.caller.me.startswith("RelatedPerson/") or "summary" in self.open:
            return None
        patient = ((self._newest(name) or Write(0, "", "", {})).resource or {})["subject"]["reference"].removeprefix("Patient/")
        worlds = []
        for _ in range(2):
            row = Write(self._moment(), "Observation", self._id(), self.r.observation(patient))
            consent = Write(row.at + SECOND, "Consent", self._id(), restriction(patient, self.caller.me, row.name))
            worlds.append(((row, consent), ((name, "result", [{"reference": row.name}]), (name, "conclusion", self.r.word()))))
        (first, first_edits), (second, second_edits) = worlds
        return (first, second), (first_edits, second_edits)
