"""Builds a row from a resource: its name with any negation, its status, details and date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fhir_server.display import statuses, values
from fhir_server.display.medicines import name_medicine
from fhir_server.display.shapes import ANY, EXTENSIONS, SHAPES, Shape
from fhir_server.display.texts import first_code, first_text, objects, plain, values_at
from fhir_server.web.dates import format_date

_DATE: Final = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)
_NOT_NAMED: Final = "No description"
_UNKNOWN_CHANGE: Final = "This entry is marked in a way that may change its meaning and that cannot be shown here"


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


# How a name begins if the resource says that it was not done
_NOT_DONE: Final = {"Immunization": "Not given", "MedicationAdministration": "Not given", "MedicationDispense": "Not handed out"}


_NOT_DONE_MARKS: Final = ("notDone", "notPerformed", "notGiven", "wasNotGiven")  # the last three: STU3 and DSTU2
# What a resource negates: how its name then begins; "": by its type
_NEGATIONS: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...]] = (
    (lambda resource: resource.get("doNotPerform") not in (None, False), "Do not take"),
    (lambda resource: resource.get("wasNotTaken") not in (None, False), "Not taken"),
    (lambda resource: first_code(resource, "taken") == "n", "Not taken"),
    (lambda resource: any(resource.get(name) not in (None, False) for name in _NOT_DONE_MARKS), ""),
)
# The same by codes of its statuses
_NEGATING_CODES: Final = {"not-taken": "Not taken", "not-done": "", "refuted": "Ruled out"}
_TAKEN: Final = {"n": "Not taken", "unk": "Not known whether it is taken", "na": "Whether it is taken does not apply"}
# Quantities of vaccinations, administrations and dispenses
_QUANTITIES: Final = (("dosage.dose", "Dose"), ("dosage.quantity", "Dose"), ("doseQuantity", "Dose"), ("quantity", "Amount"))
# What is no text, and so no part of a row
_FILES: Final = {
    "DiagnosticReport": ("presentedForm", "The report itself cannot be shown here"),
    "DocumentReference": ("content", "The document itself cannot be shown here"),
}
# What a boolean says
_MARKS: Final = (
    ("isSubpotent", True, "This dose was weaker than intended and may not protect"),
    ("primarySource", False, "Reported by someone who did not give it"),
    ("reported", True, "Reported by someone who did not give it"),
)
_RISKS: Final = {"crith": "high", "critl": "low", "critu": "not known", "unable-to-assess": "not known"}  # the first three: DSTU2
_WISHES: Final = {
    "proposal": "A proposal, not a prescription",
    "plan": "A plan, not a prescription",
    "option": "An option, not a prescription",
}


def build_row(
    resource: Mapping[str, Any], included: Mapping[str, Mapping[str, Any]] | None = None, *, files_elsewhere: bool = False
) -> Row:
    """Format a resource.  Of a type that is not in :data:`shapes.TYPES`, the row has the name, the date and the status alone.

    ``included``         resources of the same answer by ``Type/id``
    ``files_elsewhere``  whether the page offers the resource's files beside the row; otherwise the row says that they are missing
    """
    heading, shape = build_heading(resource, included), SHAPES.get(str(resource["resourceType"]), ANY)
    details = tuple(dict.fromkeys((*_details(resource, shape), *(() if files_elsewhere else _missing_files(resource)))))
    return replace(heading, details=details)


def build_heading(resource: Mapping[str, Any], included: Mapping[str, Mapping[str, Any]] | None = None) -> Row:
    """What :func:`build_row` makes, without details."""
    type = str(resource["resourceType"])
    shape = SHAPES.get(type, ANY)
    name = name_medicine(resource, included or {}) if type.startswith("Medication") else _name(resource, shape)
    not_done = _NOT_DONE.get(type, "Not done")
    said = [words for applies, words in _NEGATIONS if applies(resource)]
    coded = [_NEGATING_CODES[code] for code in statuses.codes(resource) if code in _NEGATING_CODES]
    negated = list(dict.fromkeys(words or not_done for words in (*said, *coded)))
    date = _DATE.match(next(filter(None, (first_text(resource, path) for path in shape.dates)), ""))
    what = f"{' and '.join(negated)}: {name}" if negated else name
    return Row(what, _standing(resource), (), date.group() if date else "")


def _name(resource: Mapping[str, Any], shape: Shape) -> str:
    if name := first_text(resource, *shape.name):
        return name
    reason = next(filter(None, map(values.why_absent, (resource.get(part) for path in shape.name for part in (path, f"_{path}")))), "")
    return f"{_NOT_NAMED} ({reason})" if reason else _NOT_NAMED


def is_withdrawn(resource: Mapping[str, Any]) -> bool:
    """Whether the resource was entered in error, as any of its statuses says."""
    return statuses.WITHDRAWN in (
        first_code(resource, "status"),
        *_all_codes(resource, "clinicalStatus", "verificationStatus", "docStatus"),
    )


def _all_codes(resource: Mapping[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        for found in objects(resource.get(name)):
            yield from (plain(coding.get("code")).lower() for coding in objects(found.get("coding")))
        yield plain(resource.get(name)).lower()


def _standing(resource: Mapping[str, Any]) -> str:
    taken = first_code(resource, "taken")
    intent = first_code(resource, "intent")
    extra = [_TAKEN.get(taken, ""), _WISHES.get(intent, "")]
    reason = values.why_absent(resource.get("_status"))
    return "; ".join(filter(None, [statuses.describe(resource), reason, *extra]))


def warnings(resource: Mapping[str, Any]) -> Iterator[str]:
    """What changes the meaning of all that the resource says."""
    if "modifierExtension" in resource or "implicitRules" in resource:
        yield _UNKNOWN_CHANGE
    if resource["resourceType"] == "Observation" and "focus" in resource:
        yield f"Not about the patient, but about: {first_text(resource, 'focus') or 'someone or something that was not named'}"


def _details(resource: Mapping[str, Any], shape: Shape) -> Iterator[str]:
    yield from warnings(resource)
    if resource["resourceType"] == "Observation":
        yield from values.results(resource)
        if ranges := values.reference_ranges(resource):
            yield f"Reference range: {ranges}"
    for label, paths in shape.details:
        if text := first_text(resource, *paths):
            yield f"{label}: {text}" if label else text
    for label, path in shape.amounts:
        for amount in values_at(resource, path):
            if amount is not None:
                yield f"{label}: {values.money(amount)}"
    for extension in objects(resource.get("extension")):
        label, element = EXTENSIONS.get(plain(extension.get("url")), ("", ""))
        if label:
            yield f"{label}: {values.money(extension.get(element))}"
    for path, label in _QUANTITIES:
        for amount in values_at(resource, path):
            if amount is not None:
                yield f"{label}: {values.quantity(amount)}"
    for name, meaning, words in _MARKS:
        if resource.get(name) is meaning:
            yield words
    if risk := first_code(resource, "criticality"):
        yield f"Risk of a life-threatening reaction: {_RISKS.get(risk, risk)}"
    if resource["resourceType"] == "Condition":
        yield from _course(resource)
    for name in ("occurrence", "performed"):
        if text := _time(resource, name):
            yield f"When: {text}"
    for note in objects(resource.get("note")):
        if text := plain(note.get("text")):
            yield f"Note: {text}"
    if comment := plain(resource.get("comments")) or plain(resource.get("comment")):
        yield f"Note: {comment}"


def _missing_files(resource: Mapping[str, Any]) -> Iterator[str]:
    file, words = _FILES.get(str(resource["resourceType"]), ("", ""))
    if file and file in resource:
        yield words


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
