"""Random graphs of rows that inherit labels from each other, and hidden writes to their rows.

A row refers to earlier rows of the graph, or contains a row that does.  Some rows are sensitive: by a code, a security label,
the minor-consented extension, a status or a release date.  Every row that can hold one has a word of its own in a text that sums
it up, so that an answer that says more than before can be told.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.noninterference.resource_factory import ACT, ICD, IG, LOINC, RXNORM, Json, coded, ref

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_SNOMED = "http://snomed.info/sct"
_SERVICE = f"{_TERMINOLOGY}/service-type"

# Type -> element -> the types that it may refer to.  ``.`` separates an array element from the member that holds the reference.
REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "Location": {"partOf": ("Location",), "managingOrganization": ("Organization",)},
    "HealthcareService": {"location[]": ("Location",), "providedBy": ("Organization",)},
    "PractitionerRole": {"location[]": ("Location",), "healthcareService[]": ("HealthcareService",), "organization": ("Organization",)},
    "Condition": {"encounter": ("Encounter",)},
    "ServiceRequest": {
        "encounter": ("Encounter",), "reasonReference[]": ("Condition", "Observation"), "locationReference[]": ("Location",),
        "performer[]": ("PractitionerRole", "HealthcareService"), "basedOn[]": ("ServiceRequest",), "specimen[]": ("Specimen",),
    },
    "EpisodeOfCare": {"managingOrganization": ("Organization",), "referralRequest[]": ("ServiceRequest",),
                      "diagnosis.condition": ("Condition",)},
    "Appointment": {
        "participant.actor": ("Location", "HealthcareService", "PractitionerRole"), "basedOn[]": ("ServiceRequest",),
        "reasonReference[]": ("Condition",),
    },
    "Encounter": {
        "location.location": ("Location",), "serviceProvider": ("Organization",), "participant.individual": ("PractitionerRole",),
        "basedOn[]": ("ServiceRequest",), "episodeOfCare[]": ("EpisodeOfCare",), "partOf": ("Encounter",),
        "appointment[]": ("Appointment",), "reasonReference[]": ("Condition",), "diagnosis.condition": ("Condition",),
    },
    "Specimen": {"request[]": ("ServiceRequest",), "parent[]": ("Specimen",)},
    "Observation": {
        "encounter": ("Encounter",), "basedOn[]": ("ServiceRequest",), "specimen": ("Specimen",), "performer[]": ("PractitionerRole",),
        "hasMember[]": ("Observation",), "derivedFrom[]": ("Observation",),
    },
    "MedicationRequest": {
        "encounter": ("Encounter",), "reasonReference[]": ("Condition",), "requester": ("PractitionerRole",),
        "basedOn[]": ("ServiceRequest",),
    },
    "Immunization": {"encounter": ("Encounter",), "location": ("Location",)},
    "ChargeItem": {"context": ("Encounter", "EpisodeOfCare"), "performer.actor": ("PractitionerRole",)},
    "DiagnosticReport": {
        "encounter": ("Encounter",), "basedOn[]": ("ServiceRequest",), "specimen[]": ("Specimen",), "result[]": ("Observation",),
        "performer[]": ("PractitionerRole",),
    },
    "Composition": {"encounter": ("Encounter",), "section.entry[]": ("Observation", "Condition", "DiagnosticReport")},
    "CareTeam": {"encounter": ("Encounter",), "participant.member": ("PractitionerRole",)},
    "Procedure": {"encounter": ("Encounter",), "basedOn[]": ("ServiceRequest",), "reasonReference[]": ("Condition",),
                  "location": ("Location",)},
}  # fmt: skip
DIRECTORY = frozenset({"Location", "Organization", "HealthcareService", "PractitionerRole"})
_LAYERS = (
    ("Organization", "Location", "Location", "HealthcareService", "PractitionerRole", "Condition"),
    ("ServiceRequest", "Encounter", "Encounter", "EpisodeOfCare", "Appointment", "Specimen", "Condition"),
    ("ServiceRequest", "Encounter", "Observation", "Observation", "Specimen"),
    ("Observation", "MedicationRequest", "Immunization", "ChargeItem", "CareTeam", "Procedure"),
    ("DiagnosticReport", "Composition"),
)
_CONTAINABLE = frozenset({"Encounter", "ServiceRequest", "PractitionerRole", "Location", "Specimen", "Condition"})
_KINDS_OF_WRITES = (
    *("delete", "delete", "delete", "to ordinary", "to ordinary", "to ordinary"),
    *("move", "unlink", "unlink", "touch", "other patient", "relabel"),
)
_FREE_WORD = {"Observation": "note", "DiagnosticReport": "conclusion", "Composition": "section", "CareTeam": "note", "Specimen": "note"}


@dataclass
class Node:
    """A row of a graph.  ``ordinary`` and ``sensitive`` are its bodies without references; ``references`` come on top."""

    type: str
    id: str
    ordinary: Json
    sensitive: Json | None
    references: dict[str, Any]
    contained: list[Json] = field(default_factory=list)
    lends: bool = True
    waits: bool = False

    @property
    def name(self) -> str:
        return f"{self.type}/{self.id}"

    def body(self, sensitive: bool, references: dict[str, Any] | None = None) -> Json:
        """Return the resource, sensitive or ordinary, with its own or with other references."""
        row = copy.deepcopy(self.sensitive if sensitive and self.sensitive else self.ordinary)
        links = self.references if references is None else references
        for path, target in links.items():
            refer(row, path, target)
        if "#c" in links.values():
            row["contained"] = copy.deepcopy(self.contained)
        return row


@dataclass(frozen=True)
class HiddenWrite:
    """A write that may be hidden from callers.

    ``quiet``: what the row lends cannot grow through it, so a caller who sees the row neither before nor after must get the same
    answers to every request.  Otherwise the caller must at least see nothing more.
    """

    kind: str
    node: Node
    resource: Json | None
    quiet: bool

    @property
    def releases(self) -> bool:
        """Whether the row stops waiting for its release: an explicit act, which shows what waited with it."""
        return self.resource is not None and self.node.waits and "extension" not in self.resource

    def __str__(self) -> str:
        return f"{self.kind} {self.node.name}: {self.resource}"


def refer(row: Json, path: str, target: str) -> None:
    """Set a reference at a path of :data:`REFERENCES`."""
    name, _, member = path.partition(".")
    link: Any = {"reference": target}
    if member:
        extra: Json = {"status": "accepted"} if row["resourceType"] == "Appointment" else {}
        inner = [link] if member.endswith("[]") else link
        if row.get(name) and member.endswith("[]"):
            row[name][0][member.removesuffix("[]")] = inner
        else:
            row.setdefault(name, []).append({member.removesuffix("[]"): inner, **extra})
    elif name.endswith("[]"):
        row.setdefault(name.removesuffix("[]"), []).append(link)
    else:
        row[name] = link


def ordinary_row(type: str, patient: str) -> Json:
    """Return an ordinary row of this type about this patient; rows of the directory are about nobody."""
    row = copy.deepcopy(_ORDINARY[type])
    if type == "Appointment":
        row["participant"] = [{"actor": ref("Patient", patient), "status": "accepted"}]
    elif type not in DIRECTORY:
        row["patient" if type in ("EpisodeOfCare", "Immunization") else "subject"] = ref("Patient", patient)
    return row


class Graph:
    """Draws the rows of one patient and the writes that follow.  ``label`` makes ids unique in a store that several graphs share."""

    def __init__(self, seed: int, patient: str, label: str) -> None:
        self.random = Random(f"graph {seed}")
        self.first_kind = _KINDS_OF_WRITES[seed % len(_KINDS_OF_WRITES)]
        self.patient = patient
        self.label = label
        self.nodes: list[Node] = []
        self._ids = 0
        for layer in _LAYERS:
            for type in self.random.sample(layer, self.random.randint(1, min(3, len(layer)))):
                self.nodes.append(self._node(type))
        # One chain of each graph is made to inherit: the last rows of a sensitive visit, order or department.
        if not any(node.sensitive for node in self.nodes if node.lends):
            self._make_sensitive(self.random.choice(self.nodes))

    def named(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def _id(self) -> str:
        self._ids += 1
        return f"{self.label}-{self._ids}"

    def _word(self) -> str:
        return f"zq{self.random.getrandbits(36):09x}"

    def _node(self, type: str) -> Node:
        ordinary = self._ordinary(type)
        node = Node(type, self._id(), ordinary, None, self._references(type))
        # Few rows are sensitive, so that many others are hidden for one reason only, which a write may end.
        if self.random.random() < (0.4 if type in DIRECTORY else 0.2):
            self._make_sensitive(node)
        self._maybe_contain(node)
        return node

    def _references(self, type: str) -> dict[str, Any]:
        found = {}
        for path, types in REFERENCES.get(type, {}).items():
            fit = [node.name for node in self.nodes if node.type in types]
            if fit and self.random.random() < 0.6:
                found[path] = self.random.choice(fit)
        return found

    def _maybe_contain(self, node: Node) -> None:
        """Turn one reference into a contained copy of the row, which refers to what the row refers to."""
        if node.type in DIRECTORY or self.random.random() > 0.25:
            return
        for path, target in node.references.items():
            inner = self.named(target)
            if inner.type in _CONTAINABLE and not inner.contained:
                body = inner.body(bool(inner.sensitive) and self.random.random() < 0.6)
                body.pop("meta", None)
                node.contained = [{**body, "id": "c"}]
                node.references[path] = "#c"
                return

    def _make_sensitive(self, node: Node) -> None:
        way = self.random.choice(("code", "code", "security", "security", "minor", "status", "release"))
        coded_way = SENSITIVE.get(node.type)
        if node.type in DIRECTORY or (way == "code" and coded_way):
            node.sensitive = copy.deepcopy(node.ordinary) | copy.deepcopy(coded_way or {})
            return
        row = copy.deepcopy(node.ordinary)
        if way == "minor":
            row["extension"] = [{"url": f"{IG}/StructureDefinition/minor-consented", "valueBoolean": True}]
        elif way == "status" and node.type in ("Encounter", "Observation", "Condition", "ServiceRequest"):
            row |= _WRONG.get(node.type, {"status": "entered-in-error"})
            node.lends = False
        elif way == "release" and node.type in ("Observation", "Encounter"):
            row["extension"] = [{"url": f"{IG}/StructureDefinition/release-at", "valueInstant": "2099-01-01T00:00:00Z"}]
            node.lends, node.waits = False, True
        else:
            row["meta"] = {"security": [{"system": ACT, "code": self.random.choice(("HIV", "PSY", "ETH", "SDV", "PREGNANT"))}]}
        node.sensitive = row

    def _ordinary(self, type: str) -> Json:
        row = ordinary_row(type, self.patient)
        word, text = _FREE_WORD.get(type), self._word()
        if word == "note":
            row["note"] = [{"text": text}]
        elif word == "conclusion":
            row["conclusion"] = text
        elif word == "section":
            div = f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'
            row["section"] = [{"title": "Results", "text": {"status": "generated", "div": div}}]
        return row

    def writes(self, number: int) -> list[HiddenWrite]:
        """Return a random sequence of writes: mostly to the rows that lend labels, and to the rows between them and the others.

        The first is of the kind whose turn it is, so that successive graphs have writes of every kind.
        """
        pool = [node for node in self.nodes if node.sensitive] * 4 + [node for node in self.nodes if node.references]
        gone: set[str] = set()
        released: set[str] = set()
        found = []
        for place in range(number):
            kind = self.random.choice(_KINDS_OF_WRITES) if place else self.first_kind
            fit = [node for node in pool if kind != "other patient" or node.type not in DIRECTORY]
            node = self.random.choice(fit or self.nodes)
            if node.name in gone:
                gone.discard(node.name)
                kind = self.random.choice(("re-create", "re-create ordinary"))
                write = HiddenWrite(kind, node, node.body(kind == "re-create"), quiet=True)
            else:
                write = self._write(kind, node)
            if write.resource is None:
                gone.add(node.name)
            elif write.releases:
                released.add(node.name)
            elif node.name in released:
                # The row states its release date again, so what inherits from it waits again.
                released.discard(node.name)
                write = replace(write, quiet=False)
            found.append(write)
        return found

    def _write(self, kind: str, node: Node) -> HiddenWrite:
        body = node.body(sensitive=True)
        match kind:
            case "delete":
                return HiddenWrite(kind, node, None, quiet=True)
            case "to ordinary":
                return HiddenWrite(kind, node, node.body(sensitive=False), quiet=True)
            case "unlink":
                return HiddenWrite(kind, node, node.body(bool(node.sensitive), {}), quiet=True)
            case "touch":
                return HiddenWrite(kind, node, body | {"language": self.random.choice(("en", "es", "de"))}, quiet=True)
            case "move":
                # A row inherits from what it refers to now, so this one may lend more than before.
                earlier = self.nodes[: self.nodes.index(node)]
                kept, self.nodes = self.nodes, earlier
                references = self._references(node.type)
                self.nodes = kept
                return HiddenWrite(kind, node, node.body(bool(node.sensitive), references), quiet=not references)
            case "other patient" if node.type not in DIRECTORY:
                return HiddenWrite(kind, node, of_another(body, self.patient), quiet=True)
        extra = {"meta": {"security": [{"system": ACT, "code": self.random.choice(("HIV", "PSY", "SDV"))}]}}
        return HiddenWrite("relabel", node, body | extra, quiet=False)


def of_another(row: Json, patient: str, other: str = "elder") -> Json:
    """Return the row about another patient, as when it was filed under the wrong one."""
    text = row | {"contained": row.get("contained", [])}
    moved = _replaced(text, f"Patient/{patient}", f"Patient/{other}")
    return {name: value for name, value in moved.items() if value != []}


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, old, new) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new) for inner in value]
    return new if value == old else value


_WRONG: dict[str, Json] = {
    "Condition": {"verificationStatus": coded(f"{_TERMINOLOGY}/condition-ver-status", "entered-in-error"), "clinicalStatus": None},
}
_WRONG["Condition"].pop("clinicalStatus")
_WHEN = "2026-05-19"


def _role(code: str) -> Json:
    return coded(f"{_TERMINOLOGY}/v3-RoleCode", code)


# Every code is one that a list names as ordinary; no list names kinds of specimens and documents.
_ORDINARY: dict[str, Json] = {
    "Organization": {"resourceType": "Organization", "active": True, "name": "House one"},
    "Location": {"resourceType": "Location", "status": "active", "mode": "instance", "type": [_role("FMC")], "name": "House two"},
    "HealthcareService": {"resourceType": "HealthcareService", "active": True, "type": [coded(_SERVICE, "124")]},
    "PractitionerRole": {"resourceType": "PractitionerRole", "active": True, "practitioner": ref("Practitioner", "dr-one")},
    "Condition": {"resourceType": "Condition", "code": coded(ICD, "J45.20"), "onsetDateTime": _WHEN},
    "ServiceRequest": {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": coded(LOINC, "718-7")},
    "EpisodeOfCare": {
        "resourceType": "EpisodeOfCare", "status": "active", "type": [coded(_SERVICE, "124")],
    },
    "Appointment": {
        "resourceType": "Appointment", "status": "booked", "serviceType": [coded(_SERVICE, "124")],
        "start": f"{_WHEN}T10:00:00Z", "end": f"{_WHEN}T10:30:00Z",
    },
    "Encounter": {
        "resourceType": "Encounter", "status": "finished", "class": {"system": ACT, "code": "AMB"}, "serviceType": coded(_SERVICE, "124"),
    },
    "Specimen": {"resourceType": "Specimen", "type": coded(_SNOMED, "117015009")},
    "Observation": {
        "resourceType": "Observation", "status": "final", "code": coded(LOINC, "718-7"), "effectiveDateTime": _WHEN,
        "category": [coded(f"{_TERMINOLOGY}/observation-category", "laboratory")],
    },
    "MedicationRequest": {
        "resourceType": "MedicationRequest", "status": "active", "intent": "order", "medicationCodeableConcept": coded(RXNORM, "435"),
    },
    "Immunization": {
        "resourceType": "Immunization", "status": "completed", "vaccineCode": coded("http://hl7.org/fhir/sid/cvx", "140"),
        "occurrenceDateTime": _WHEN,
    },
    "ChargeItem": {"resourceType": "ChargeItem", "status": "billed", "code": coded(LOINC, "718-7")},
    "DiagnosticReport": {
        "resourceType": "DiagnosticReport", "status": "final", "code": coded(LOINC, "58410-2"), "effectiveDateTime": _WHEN,
        "category": [coded(f"{_TERMINOLOGY}/v2-0074", "LAB")],
    },
    "Composition": {
        "resourceType": "Composition", "status": "final", "type": coded(LOINC, "58410-2"), "date": _WHEN, "title": "Summary",
        "author": [ref("Practitioner", "dr-one")],
    },
    "CareTeam": {"resourceType": "CareTeam", "status": "active"},
    "Procedure": {"resourceType": "Procedure", "status": "completed", "code": coded(_SNOMED, "117015009"), "performedDateTime": _WHEN},
}  # fmt: skip
SENSITIVE: dict[str, Json] = {
    "Organization": {"type": [coded(f"{_TERMINOLOGY}/organization-type", "dept")], "name": "Mental health clinic"},
    "Location": {"type": [_role("PSY")]},
    "HealthcareService": {"type": [coded(_SERVICE, "142")]},
    "PractitionerRole": {"specialty": [coded(_SNOMED, "394587001")]},
    "Condition": {"code": coded(ICD, "F32.1")},
    "ServiceRequest": {"code": coded(LOINC, "56888-1")},
    "Appointment": {"serviceType": [coded(_SERVICE, "142")]},
    "Encounter": {"serviceType": coded(_SERVICE, "142")},
    "Observation": {"code": coded(LOINC, "56888-1")},
    "MedicationRequest": {"medicationCodeableConcept": coded(RXNORM, "36437")},
    "Immunization": {"vaccineCode": coded("http://hl7.org/fhir/sid/cvx", "165")},
}
