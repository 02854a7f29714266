"""Makes R4 resources with little variety for the noninterference tests.

Dates, values, codes and identifiers come from small pools, so that visible and hidden rows often have equal values.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

Json = dict[str, Any]
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
IG = "https://fhir-server.example/ig"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
CLINICIAN_HOLDS = tuple({"system": ACT, "code": code} for code in ("PHY", "TBOO", "NOPAT"))
DATES = ("2026-03-01", "2026-03-02", "2026-05-19", "2026-05-20", "2026-08-07", "2026-10-05")
VALUES = (4.0, 5.0, 5.1, 6.0, 12.5, 13.5)
NUMBERS = ("A-100", "A-101", "A-102", "A-103")
ORDINARY_LAB = ("718-7", "6690-2", "2093-3", "2339-0")
VITALS = ("29463-7", "8310-5")
LABELLED_LAB = ("56888-1", "21613-5", "20507-0", "2106-3")
ORDINARY_DRUGS = ("435", "28889", "83367", "17767")
LABELLED_DRUGS = ("36437", "476556")
PLACES = ("clinic", "laboratory")
SENSITIVE_PLACES = ("mental-health", "drug-treatment")


CODES, KINDS, FORM = "urn:twins:codes", "urn:twins:kinds", "urn:twins:form"


@dataclass
class Recipes:
    """Generates resources.  ``word`` returns a new word for free text, which marks hidden data if the row is hidden."""

    random: Random
    word: Any

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def date(self) -> str:
        return self.pick(*DATES)

    def time(self) -> str:
        return f"{self.date()}T{self.pick('09', '10', '16')}:00:00-04:00"

    def identifier(self) -> list[Json]:
        found = [{"system": "https://ids.example/accession", "value": self.pick(*NUMBERS)}]
        return found + ([{"system": "https://ids.example/order", "value": self.word()}] if self.random.random() < 0.3 else [])

    def quantity(self) -> Json:
        return {"value": self.pick(*VALUES), "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}

    def observation(self, patient: str, codes: tuple[str, ...] = ORDINARY_LAB, category: str = "laboratory", **more: Any) -> Json:
        if codes is VITALS or codes == VITALS:
            category = "vital-signs"
        return {
            "resourceType": "Observation", "status": "final", "identifier": self.identifier(),
            "category": [{"coding": [{"system": f"{_TERMINOLOGY}/observation-category", "code": category}]}],
            "code": coded(LOINC, self.pick(*codes)), "subject": ref("Patient", patient), "effectiveDateTime": self.time(),
            "performer": [ref("Practitioner", self.pick("dr-one", "dr-two"))], "valueQuantity": self.quantity(), **more,
        }  # fmt: skip

    def value_set(self) -> Json:
        """Return a value set of codes that visible rows have."""
        codes = self.random.sample((*ORDINARY_LAB, *VITALS, "85354-9"), 3)
        compose = {"include": [{"system": LOINC, "concept": [{"code": code} for code in codes]}]}
        return {"resourceType": "ValueSet", "url": CODES, "status": "active", "name": self.word(), "compose": compose}

    def code_system(self) -> Json:
        """Return a code system with a hierarchy of codes."""
        concept = {"code": "a", "concept": [{"code": self.pick("b", "c"), "display": self.word()}]}
        return {"resourceType": "CodeSystem", "url": KINDS, "status": "active", "content": "complete", "concept": [concept]}

    def concept_map(self) -> Json:
        """Return a map of codes that visible rows have."""
        element = [{"code": self.pick(*ORDINARY_LAB), "target": [{"code": self.word(), "equivalence": "equal"}]}]
        group = [{"source": LOINC, "target": KINDS, "element": element}]
        return {"resourceType": "ConceptMap", "url": "urn:twins:map", "status": "active", "group": group}

    def of_specimen(self, patient: str) -> Json:
        """Return a result with its specimen contained in it."""
        blood = {"resourceType": "Specimen", "id": "s", "type": coded("http://snomed.info/sct", "117015009")}
        return self.observation(patient) | {"contained": [blood], "specimen": {"reference": "#s"}}

    def panel(self, patient: str, codes: tuple[str, ...] = VITALS, **more: Any) -> Json:
        parts = [{"code": coded(LOINC, code), "valueQuantity": self.quantity()} for code in codes]
        row = self.observation(patient, ("85354-9",), "vital-signs", component=parts, **more)
        return {name: value for name, value in row.items() if name != "valueQuantity"}

    def report(self, patient: str, results: tuple[str, ...] = (), **more: Any) -> Json:
        return {
            "resourceType": "DiagnosticReport", "status": "final", "identifier": self.identifier(),
            "category": [{"coding": [{"system": f"{_TERMINOLOGY}/v2-0074", "code": "LAB"}]}], "code": coded(LOINC, "58410-2"),
            "subject": ref("Patient", patient), "effectiveDateTime": self.time(), "issued": self.time(),
            **({"result": [{"reference": one} for one in results]} if results else {}), **more,
        }  # fmt: skip

    def statement(self, patient: str, drugs: tuple[str, ...] = ORDINARY_DRUGS, **more: Any) -> Json:
        return {
            "resourceType": "MedicationStatement", "status": self.pick("active", "completed"), "identifier": self.identifier(),
            "medicationCodeableConcept": coded(RXNORM, self.pick(*drugs)), "subject": ref("Patient", patient),
            "effectiveDateTime": self.date(), **more,
        }  # fmt: skip

    def prescription(self, patient: str, drugs: tuple[str, ...] = ORDINARY_DRUGS, **more: Any) -> Json:
        return {
            "resourceType": "MedicationRequest", "status": "active", "intent": "order", "identifier": self.identifier(),
            "medicationCodeableConcept": coded(RXNORM, self.pick(*drugs)), "subject": ref("Patient", patient),
            "authoredOn": self.date(), "requester": ref("Practitioner", self.pick("dr-one", "dr-two")), **more,
        }  # fmt: skip

    def encounter(self, patient: str, place: str = "clinic", **more: Any) -> Json:
        start = self.time()
        return {
            "resourceType": "Encounter", "status": "finished", "identifier": self.identifier(),
            "class": {"system": ACT, "code": self.pick("AMB", "IMP")}, "serviceType": coded(f"{_TERMINOLOGY}/service-type", "124"),
            "subject": ref("Patient", patient), "participant": [{"individual": ref("Practitioner", self.pick("dr-one", "dr-two"))}],
            "period": {"start": start, "end": start}, "location": [{"location": ref("Location", place)}], **more,
        }  # fmt: skip

    def appointment(self, patients: tuple[str, ...], service: str = "124", place: str = "clinic", **more: Any) -> Json:
        actors = [*(ref("Patient", one) for one in patients), ref("Practitioner", "dr-one"), ref("Location", place)]
        start = self.time()
        return {
            "resourceType": "Appointment", "status": self.pick("booked", "fulfilled"), "identifier": self.identifier(),
            "serviceType": [coded(f"{_TERMINOLOGY}/service-type", service)], "start": start, "end": start.replace(":00:00-", ":30:00-"),
            "participant": [{"actor": actor, "status": "accepted"} for actor in actors], **more,
        }  # fmt: skip

    def condition(self, patient: str, code: str = "J45.20", **more: Any) -> Json:
        status = coded(f"{_TERMINOLOGY}/condition-clinical", "active")
        return {
            "resourceType": "Condition", "clinicalStatus": status, "code": coded(ICD, code), "identifier": self.identifier(),
            "subject": ref("Patient", patient), "onsetDateTime": self.date(), "recordedDate": self.date(), **more,
        }  # fmt: skip

    def immunization(self, patient: str, **more: Any) -> Json:
        return {
            "resourceType": "Immunization", "status": "completed", "identifier": self.identifier(),
            "vaccineCode": coded("http://hl7.org/fhir/sid/cvx", self.pick("115", "140", "03")), "patient": ref("Patient", patient),
            "occurrenceDateTime": self.date(), "lotNumber": self.pick("L1", "L2"), "primarySource": True, **more,
        }  # fmt: skip

    def account(self, patients: tuple[str, ...], **more: Any) -> Json:
        balance = {"url": f"{IG}/StructureDefinition/account-balance", "valueMoney": {"value": self.pick(*VALUES), "currency": "USD"}}
        return {
            "resourceType": "Account", "extension": [balance, *more.pop("extension", [])], "status": "active",
            "identifier": self.identifier(), "type": coded(ACT, "PBILLACCT"), "name": self.pick("Home account", "Care account"),
            "subject": [ref("Patient", one) for one in patients], "servicePeriod": {"start": self.date()}, **more,
        }  # fmt: skip

    def coverage(self, patient: str, **more: Any) -> Json:
        return {
            "resourceType": "Coverage", "status": "active", "identifier": self.identifier(), "type": coded(ACT, "EHCPOL"),
            "beneficiary": ref("Patient", patient), "period": {"start": self.date()}, "payor": [ref("Organization", "hospital")], **more,
        }  # fmt: skip

    def allergy(self, patient: str, drugs: tuple[str, ...] = ("28889", "435"), **more: Any) -> Json:
        return {
            "resourceType": "AllergyIntolerance", "clinicalStatus": coded(f"{_TERMINOLOGY}/allergyintolerance-clinical", "active"),
            "identifier": self.identifier(), "code": coded(RXNORM, self.pick(*drugs)), "patient": ref("Patient", patient),
            "recordedDate": self.date(), **more,
        }  # fmt: skip

    def message(self, patient: str, sender: str, recipient: str = "Practitioner/dr-one", **more: Any) -> Json:
        return {
            "resourceType": "Communication", "status": "completed", "identifier": self.identifier(), "subject": ref("Patient", patient),
            "sent": self.time(), "sender": {"reference": sender}, "recipient": [{"reference": recipient}],
            "payload": [{"contentString": self.word()}], "instantiatesCanonical": [FORM], **more,
        }  # fmt: skip

    def provenance(self, target: str, agent: str, **more: Any) -> Json:
        return {
            "resourceType": "Provenance", "target": [{"reference": target}], "recorded": self.time(),
            "agent": [{"who": {"reference": agent}}], **more,
        }  # fmt: skip

    def related(self, patient: str, family: str = "Parent", **more: Any) -> Json:
        return {
            "resourceType": "RelatedPerson", "active": True, "patient": ref("Patient", patient), "identifier": self.identifier(),
            "name": [{"family": family, "given": [self.word()]}], **more,
        }  # fmt: skip

    def grant(self, patient: str, grantee: str, kind: str = "proxy-child", **more: Any) -> Json:
        return grant(patient, grantee, kind, self.date(), **more)

    def plain(self, type: str, patient: str, **more: Any) -> Json:
        """Return a row whose data class depends only on its type: Procedure, QuestionnaireResponse, ServiceRequest, CareTeam."""
        return {"resourceType": type, "identifier": self.identifier(), "subject": ref("Patient", patient), **_PLAIN[type], **more}


def ref(type: str, id: str) -> Json:
    return {"reference": f"{type}/{id}"}


def coded(system: str, code: str, **more: Any) -> Json:
    return {"coding": [{"system": system, "code": code, **more}]}


def grant(patient: str, grantee: str, kind: str, day: str, **more: Any) -> Json:
    """Return a Consent that opens ``patient``'s record to a related person."""
    levels = [coded(f"{IG}/CodeSystem/proxy-level", "standard")] if kind == "proxy-adult" else []
    actor = {"role": coded(f"{_TERMINOLOGY}/v3-RoleCode", "GRANTEE"), "reference": {"reference": grantee}}
    return {
        "resourceType": "Consent", "status": "active", "scope": coded(f"{_TERMINOLOGY}/consentscope", "patient-privacy"),
        "category": [coded(LOINC, "59284-0"), coded(f"{IG}/CodeSystem/consent-kind", kind), *levels],
        "patient": ref("Patient", patient), "dateTime": day, "performer": [ref("Patient", patient)],
        "policy": [{"uri": f"{IG}/policy/optum"}],
        "provision": {"provision": [{"type": "permit", "period": {"start": "2020-01-01"}, "actor": [actor]}]}, **more,
    }  # fmt: skip


def restriction(patient: str, grantee: str, row: str) -> Json:
    """Return a Consent by which a patient hides one row from a person who has access."""
    base = grant(patient, grantee, "restriction", "2026-03-01")
    refusal = base["provision"]["provision"][0] | {"type": "deny", "data": [{"meaning": "instance", "reference": {"reference": row}}]}
    return base | {"provision": {"provision": [refusal]}}


_PLAIN: dict[str, Json] = {
    "Procedure": {"status": "completed", "code": coded("http://snomed.info/sct", "117015009"), "performedDateTime": "2026-05-19"},
    "ServiceRequest": {"status": "active", "intent": "order", "code": coded(LOINC, "718-7"), "authoredOn": "2026-05-19"},
    "CareTeam": {"status": "active", "name": "Team", "participant": [{"member": ref("Practitioner", "dr-one")}]},
    "QuestionnaireResponse": {"status": "completed", "authored": "2026-05-19T10:00:00-04:00"},
}
