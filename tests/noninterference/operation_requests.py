"""Generates requests of the operations that read records."""

from __future__ import annotations

from typing import Any

from tests.noninterference.oracle import BORN
from tests.noninterference.paired_server import Ask
from tests.noninterference.resource_factory import KINDS
from tests.noninterference.write_requests import JSON_TYPE, UNKNOWN, Writes, text_of


class OperationRequests(Writes):
    """The operations, and histories of several resources, each with parameters that name what is hidden as often as what is shown."""

    def operation(self) -> Ask:
        """A request of one of the operations."""
        return self._pick(self.lastn, self.lastn, self.everything_of_others, self.match, self.docref, self.document, self.summary)()

    def _record(self) -> str:
        """Mostly the caller's patient."""
        return self._patient if self._random.random() < 0.85 else self._pick("teen", "elder", "adult", UNKNOWN)

    def lastn(self) -> Ask:
        """The newest of each code, of all results or of those that a search finds."""
        pairs = [(self._pick("patient", "subject"), f"Patient/{self._record()}")]
        pairs.append(("code:not" if self._random.random() < 0.1 else "code", self._value("Observation", "code", "token")))
        if self._random.random() < 0.7:
            pairs[-1] = ("category", self._pick("laboratory", "laboratory", "vital-signs", self._value("Observation", "category", "token")))
        if self._random.random() < 0.3:
            pairs.append(self._criterion("Observation"))
        pairs += [("max", self._pick("1", "2", "3"))] if self._random.random() < 0.5 else []
        pairs += [("_count", self._pick("1", "2", "5"))] if self._random.random() < 0.3 else []
        return Ask.get("lastn", "Observation/$lastn", pairs)

    def everything_of_others(self) -> Ask:
        """The record of an encounter, of a group, or of the patient in context."""
        path = self._pick(*self._named("Encounter"), f"Encounter/{UNKNOWN}", f"Group/{UNKNOWN}", "Patient", "Patient")
        pairs = [("_count", self._pick("1", "2", "5"))] if self._random.random() < 0.6 else []
        pairs += [("_type", ",".join({self._type(), self._type()}))] if self._random.random() < 0.3 else []
        return Ask.get("everything", f"{path}/$everything", pairs)

    def _named(self, type: str) -> list[str]:
        """The rows of a type, hidden ones too."""
        return [name for name in (*self._probes.hidden_ids, *self._probes.shown_ids) if name.startswith(f"{type}/")]

    def match(self) -> Ask:
        """A Patient who is stored, or nearly so."""
        id = self._pick(*BORN, self._patient)
        patient: dict[str, Any] = {"resourceType": "Patient", "name": [{"family": id.title()}], "birthDate": self._pick(*BORN.values())}
        if self._random.random() < 0.7:
            patient["birthDate"] = BORN.get(id, "2000-01-01")
        if self._random.random() < 0.3:
            patient["identifier"] = [{"system": "https://ids.example/accession", "value": self._pick("A-100", "A-101")}]
        body = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient}]}
        return Ask("match", "POST", "Patient/$match", "", (JSON_TYPE,), text_of(body))

    def docref(self) -> Ask:
        pairs = [("patient", self._record())]
        pairs += [("type", self._value("DocumentReference", "type", "token"))] if self._random.random() < 0.3 else []
        pairs += [("start", self._pick("2026-03-02", "2026-05-20"))] if self._random.random() < 0.4 else []
        pairs += [("_count", self._pick("1", "2"))] if self._random.random() < 0.3 else []
        return Ask.get("docref", "DocumentReference/$docref", pairs)

    def document(self) -> Ask:
        return Ask.get("document", f"{self._pick(*self._named('Composition'), f'Composition/{UNKNOWN}')}/$document")

    def summary(self) -> Ask:
        return Ask.get("summary", f"Patient/{self._record()}/$summary")

    def steady_operations(self) -> list[Ask]:
        """The requests of operations that are sent in every case."""
        of = ("patient", self._patient)
        every = ",".join({code for code in self._all_codes("Observation") if "," not in code}) or UNKNOWN
        asks = [Ask.get("lastn", "Observation/$lastn", [of, ("code", every), ("max", most)]) for most in ("1", "2")]
        asks.append(Ask.get("docref", "DocumentReference/$docref", [of]))
        asks.append(Ask.get("summary", f"Patient/{self._patient}/$summary"))
        asks += [Ask.get("document", f"{name}/$document") for name in self._named("Composition")]
        cards = f"Patient/{self._patient}/$health-cards-issue"
        asks += [Ask.get("health-cards", cards, [("credentialType", "Immunization"), *more]) for more in ((), (("_since", "2026-03-02"),))]
        if self._named("CodeSystem"):
            asks += [self._closure(codes) for codes in ((), ("a", "b", "c"))]
        return asks + [Ask.get("everything", f"{path}/$everything", [("_count", "50")]) for path in (*self._named("Encounter"), "Patient")]

    def _closure(self, codes: tuple[str, ...]) -> Ask:
        """The closure table of the caller: made without codes, then asked which of these subsume which."""
        concepts = [{"name": "concept", "valueCoding": {"system": KINDS, "code": code}} for code in codes]
        body = {"resourceType": "Parameters", "parameter": [{"name": "name", "valueString": "twins"}, *concepts]}
        return Ask("terminology", "POST", "$closure", headers=(JSON_TYPE,), body=text_of(body))

    def _all_codes(self, type: str) -> list[str]:
        """The values of code of visible and hidden rows."""
        return sorted({*self._probes.hidden.get((type, "code"), ()), *self._probes.shown.get((type, "code"), ())})

    def type_history(self) -> Ask:
        """The history of a type or of all, sometimes of a resource with the same parameters, around times of hidden and visible rows."""
        type = self._type()
        pairs = [("_count", self._pick("1", "2", "3", "50"))] if self._random.random() < 0.6 else []
        for name, share in (("_since", 0.4), ("_at", 0.3)):
            if self._random.random() < share:
                pairs.append((name, self._value(type, "_lastUpdated", "date")))
        if self._random.random() < 0.3:
            pairs.append(("_sort", self._pick("_lastUpdated", "-_lastUpdated")))
        path = self._pick(f"{type}/_history", f"{type}/_history", "_history", f"{self._name()}/_history")
        return Ask.get("type-history", path, pairs)

    def steady_histories(self) -> list[Ask]:
        """The histories that are asked of every case."""
        asks = [Ask.get("type-history", f"{type}/_history", [("_count", count)]) for type in self._types for count in ("2", "50")]
        return asks + [Ask.get("type-history", "_history", [("_count", count)]) for count in ("7", "100")]
