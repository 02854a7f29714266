"""More kinds of hidden rows: what inherits from a sensitive row, stored or contained, also after that row is gone."""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64encode

from tests.noninterference.label_edges import CHAINS, EDGES, Edge, heir_row, source_row
from tests.noninterference.label_graphs import DIRECTORY
from tests.noninterference.oracle import BORN
from tests.noninterference.paired_server import SECOND, Write
from tests.noninterference.resource_factory import FORM, IG, LABELLED_LAB, SENSITIVE_PLACES, Json, coded, ref, restriction
from tests.noninterference.secret_draws import SecretDraws

# The heirs of these edges are hidden from the callers with limited access.  Every caller sees the directory, whose sensitive place
# is a fact of both servers.
_EDGES = tuple(edge for edge in EDGES if edge.heir != "Immunization" and edge.source not in DIRECTORY - {"Location"})
_CHAINS = tuple(chain for chain in CHAINS if chain.first in _EDGES and chain.second in _EDGES)


class HiddenRows(SecretDraws):
    """Draws hidden rows of these kinds.  A sequence is several writes to the same rows, of which the last leaves all hidden."""

    SEQUENCES = frozenset({"source deleted", "source replaced", "source re-created"})
    names: list[str]

    @abstractmethod
    def person(self) -> str: ...

    def _strangers(self, number: int) -> list[str]:
        return self.random.sample(sorted(set(BORN) - {self.caller.patient, "teen", "child", "adult"}), number)

    def _naming_the_caller(self, row: Json) -> Json:
        """Return a row of another patient that names the caller in another part."""
        me, type = self.caller.me, row["resourceType"]
        if not me:
            return row
        if type == "Observation":
            mine = {"focus": [ref("Patient", self.caller.patient)]} if self.random.random() < 0.5 else {"performer": [{"reference": me}]}
            return row | mine
        return row

    def _more_hidden(self, kind: str, p: str) -> list[Json]:
        match kind:
            case "inherited":
                return self._inherited(p)
            case "contained":
                return self._contained(p)
            case "later file":
                release = {"url": f"{IG}/StructureDefinition/release-at", "valueInstant": "2027-05-01T00:00:00Z"}
                id = self._id()
                note = {
                    "resourceType": "DocumentReference", "id": id, "status": "current", "type": coded("http://loinc.org", "11506-3"),
                    "subject": ref("Patient", p), "content": [{"attachment": {"title": self.r.word()}}], "extension": [release],
                }  # fmt: skip
                data = b64encode(note["content"][0]["attachment"]["title"].encode()).decode()
                context = ref("DocumentReference", id)
                text = {"resourceType": "Binary", "contentType": "text/plain", "securityContext": context, "data": data}
                return [note, text]
            case "own act on a hidden row":
                id = self._id()
                row = self.r.observation(p, LABELLED_LAB) | {"id": id}
                return [row] if "provenance" in self.open else [row, self.r.provenance(f"Observation/{id}", self.caller.me)]
            case "policy of the caller":
                return [self.r.coverage(self.other()) | {"subscriber": {"reference": self.caller.me}}]
            case "terminology":
                return [self.r.pick(self.r.value_set, self.r.code_system, self.r.concept_map)()]
            case "restricted terminology":
                row = self.r.pick(self.r.value_set, self.r.code_system, self.r.concept_map)() | {"id": self._id()}
                form = {"resourceType": "Questionnaire", "id": self._id(), "url": FORM, "status": "active"}
                return [part for one in (row, form) for part in (one, restriction(p, self.caller.me, f"{one['resourceType']}/{one['id']}"))]
            case "named medication":
                id = self._id()
                drug = {"resourceType": "Medication", "id": id, "code": {"text": self.r.word()}}
                order = self.r.prescription(p) | {"status": "draft", "medicationReference": ref("Medication", id)}
                del order["medicationCodeableConcept"]
                return [self.r.observation(p) | {"status": "preliminary"}] if "medication" in self.open else [drug, order]
        raise AssertionError(kind)

    def _inherited(self, p: str) -> list[Json]:
        edge = self.r.pick(*_EDGES)
        sources, name = self._source(edge, p)
        return [*sources, heir_row(edge, name, p)]

    def _source(self, edge: Edge, p: str) -> tuple[list[Json], str]:
        """Return the sensitive row at the end of an edge, to be stored with its heir, and its ``Type/id``."""
        if edge.source in DIRECTORY:
            return [], f"Location/{self.r.pick(*SENSITIVE_PLACES)}"
        id = self._id()
        return [source_row(edge.source, sensitive=True, patient=p) | {"id": id}], f"{edge.source}/{id}"

    def _contained(self, p: str) -> list[Json]:
        if "contained" in self.open:
            return self._inherited(p)
        chain = self.r.pick(*_CHAINS)
        sources, name = self._source(chain.second, p)
        between = heir_row(chain.second, name, p)
        return [*sources, heir_row(chain.first, "#between", p) | {"contained": [{**between, "id": "between"}]}]

    def _sequence(self, kind: str) -> tuple[Write, ...]:
        patient, visit, first = self.person(), self._id(), self._moment()
        sensitive = self.r.encounter(patient, self.r.pick(*SENSITIVE_PLACES))
        inside = self.r.observation(patient) | {"encounter": ref("Encounter", visit)}
        order = self.r.prescription(patient) | {"encounter": ref("Encounter", visit)}
        heirs = [Write(first + SECOND, "Observation", self._id(), inside), Write(first + SECOND, "MedicationRequest", self._id(), order)]
        states: dict[str, list[Json | None]] = {
            "source deleted": [sensitive, None],
            "source replaced": [sensitive, self.r.encounter(patient) | {"status": "entered-in-error"}],
            "source re-created": [self.r.encounter(patient) | {"status": "entered-in-error"}, None, sensitive],
        }
        if "deleted" in self.open:
            states["source deleted"] = states["source replaced"] = states["source re-created"]
        before, *after = states[kind]
        later = [Write(first + (2 + n) * SECOND, "Encounter", visit, state) for n, state in enumerate(after)]
        return (Write(first, "Encounter", visit, before), *heirs, *later)
