"""Builds a row from a resource: its name with any negation, its status, details and date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.linking.rows import statuses, values
from fhir_server.linking.rows.medicines import name_medicine
from fhir_server.linking.rows.texts import first_code, first_text, objects, plain
from fhir_server.web.dates import format_date

_DATE: Final = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)
_NOT_NAMED: Final = "No description"
_UNKNOWN_CHANGE: Final = "The other health system marked this entry in a way that may change its meaning and that cannot be shown here"


@dataclass(frozen=True, slots=True)
class Row:
    """One resource.

    ``what``      its name; begins with words such as "Not taken:" if the resource says the opposite
    ``standing``  its status in words
    ``details``   values, doses, reactions and the like, one text each
    ``when``      a FHIR date, by which rows are sorted; "" if there is none
    """

    what: str
    standing: str
    details: tuple[str, ...] = ()
    when: str = ""

    @property
    def day(self) -> str:
        """``when``, formatted for the page."""
        return format_date(self.when)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where a type has its name, its dates and its details: (label, paths); in each, the first path with a value is used."""

    name: tuple[str, ...]
    dates: tuple[str, ...]
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()


_DOSE: Final = ("dosageInstruction.text", "dosageInstruction.patientInstruction")
_ORDER: Final = _Shape((), ("authoredOn", "dateWritten"), (("", _DOSE), ("Reason for the status", ("statusReason", "reasonEnded"))))
_SHAPES: Final[Mapping[str, _Shape]] = {
    "AllergyIntolerance": _Shape(
        ("code", "substance"),
        ("recordedDate", "assertedDate", "onsetDateTime", "onset"),
        (
            ("Reaction", ("reaction.manifestation.concept", "reaction.manifestation", "reaction.description")),
            ("Severity of a reaction", ("reaction.severity",)),
        ),
    ),
    "MedicationRequest": _ORDER,
    "MedicationOrder": _ORDER,
    "MedicationStatement": _Shape(
        (),
        ("effectiveDateTime", "effectivePeriod.start", "dateAsserted"),
        (
            ("", ("dosage.text",)),
            ("Reason for the status", ("statusReason", "reasonNotTaken")),
        ),
    ),
    "Observation": _Shape(("code",), ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant", "issued")),
    "Appointment": _Shape(
        ("serviceType", "appointmentType", "type", "description"),
        ("start",),
        (("With", ("participant.actor",)), ("Reason for the status", ("cancelationReason", "cancellationReason"))),
    ),
    "Encounter": _Shape(
        ("type", "serviceType", "class"), ("period.start",), (("At", ("location.location",)), ("With", ("participant.individual",)))
    ),
    "Condition": _Shape(
        ("code",),
        ("onsetDateTime", "onsetPeriod.start", "recordedDate", "assertedDate", "dateRecorded"),
        (("Severity", ("severity",)),),
    ),
    "CareTeam": _Shape(("name", "category"), ("period.start",), (("Members", ("participant.member",)),)),
    "Communication": _Shape(
        ("payload.contentString",),
        ("sent", "received"),
        (("About", ("topic", "reasonCode", "reason")), ("Reason for the status", ("statusReason", "notDoneReason", "reasonNotPerformed"))),
    ),
}
TYPES: Final = tuple(_SHAPES)
# What a resource negates: how its name then begins
_NEGATIONS: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...]] = (
    (lambda resource: resource.get("doNotPerform") not in (None, False), "Do not take"),
    (lambda resource: resource.get("wasNotTaken") not in (None, False), "Not taken"),
    (lambda resource: first_code(resource, "taken") == "n" or "not-taken" in statuses.codes(resource), "Not taken"),
    (lambda resource: resource.get("wasNotGiven") not in (None, False) or resource.get("notGiven") not in (None, False), "Not given"),
    (lambda resource: resource.get("notDone") not in (None, False) or "not-done" in statuses.codes(resource), "Not done"),
    (lambda resource: "refuted" in statuses.codes(resource), "Ruled out"),
)
_TAKEN: Final = {"n": "Not taken", "unk": "Not known whether it is taken", "na": "Whether it is taken does not apply"}
_RISKS: Final = {"crith": "high", "critl": "low", "critu": "not known", "unable-to-assess": "not known"}  # the first three: DSTU2
_WISHES: Final = {
    "proposal": "A proposal, not a prescription",
    "plan": "A plan, not a prescription",
    "option": "An option, not a prescription",
}


def build_row(resource: Mapping[str, Any], included: Mapping[str, Mapping[str, Any]] | None = None) -> Row:
    """Format a resource of a type in :data:`TYPES`.  ``included``: resources of the same answer by ``Type/id``."""
    type = str(resource["resourceType"])
    shape = _SHAPES[type]
    name = name_medicine(resource, included or {}) if type.startswith("Medication") else first_text(resource, *shape.name) or _NOT_NAMED
    negated = list(dict.fromkeys(words for applies, words in _NEGATIONS if applies(resource)))
    date = _DATE.match(next(filter(None, (first_text(resource, path) for path in shape.dates)), ""))
    what = f"{' and '.join(negated)}: {name}" if negated else name
    return Row(what, _standing(resource), tuple(dict.fromkeys(_details(resource, shape))), date.group() if date else "")


def is_withdrawn(resource: Mapping[str, Any]) -> bool:
    """Whether the other system says that the resource was entered in error, in any of its statuses."""
    return statuses.WITHDRAWN in (first_code(resource, "status"), *_all_codes(resource, "clinicalStatus", "verificationStatus"))


def _all_codes(resource: Mapping[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        for found in objects(resource.get(name)):
            yield from (plain(coding.get("code")).lower() for coding in objects(found.get("coding")))
        yield plain(resource.get(name)).lower()


def _standing(resource: Mapping[str, Any]) -> str:
    taken = first_code(resource, "taken")
    intent = first_code(resource, "intent")
    extra = [_TAKEN.get(taken, ""), _WISHES.get(intent, "")]
    return "; ".join(filter(None, [statuses.describe(resource), *extra]))


def _details(resource: Mapping[str, Any], shape: _Shape) -> Iterator[str]:
    if "modifierExtension" in resource or "implicitRules" in resource:
        yield _UNKNOWN_CHANGE
    if resource["resourceType"] == "Observation":
        yield from values.results(resource)
        if "focus" in resource:
            yield f"Not about the patient, but about: {first_text(resource, 'focus') or 'someone or something that was not named'}"
        if ranges := values.reference_ranges(resource):
            yield f"Reference range: {ranges}"
    for label, paths in shape.details:
        if text := first_text(resource, *paths):
            yield f"{label}: {text}" if label else text
    if risk := first_code(resource, "criticality"):
        yield f"Risk of a life-threatening reaction: {_RISKS.get(risk, risk)}"
    if resource["resourceType"] == "Condition":
        yield from _course(resource)
    for note in objects(resource.get("note")):
        if text := plain(note.get("text")):
            yield f"Note: {text}"
    if comment := plain(resource.get("comments")) or plain(resource.get("comment")):
        yield f"Note: {comment}"


def _course(resource: Mapping[str, Any]) -> Iterator[str]:
    """When a health issue began, if that is not a date, and when it ended."""
    for name, label in (("onset", "Began"), ("abatement", "Ended")):
        if text := _time(resource, name):
            yield f"{label}: {text}"
    ended = resource.get("abatementBoolean")  # STU3
    if isinstance(ended, bool):
        yield "Ended" if ended else "Not ended"


def _time(resource: Mapping[str, Any], name: str) -> str:
    if name == "abatement" and (day := format_date(first_text(resource, "abatementDateTime", "abatementPeriod.end"))):
        return day
    if age := resource.get(f"{name}Age"):
        return f"at the age of {values.quantity(age)}"
    if span := resource.get(f"{name}Range"):
        return values.value_range(span)
    return first_text(resource, f"{name}String")
