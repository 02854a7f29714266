"""What another system says, in lines a person can read.

The JSON is another server's and may hold anything: what does not have the expected shape is left out, and nothing of
it is a link or markup.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_server.linking import links
from fhir_server.linking.context import LinkError, LinkingContext, NotSharedError
from fhir_server.linking.links import Link
from fhir_server.smart.accounts.users import User
from fhir_server.web.dates import format_date

# title -> resource types, in the order of the page
SECTIONS: Final = {
    "Allergies": ("AllergyIntolerance",),
    "Medicines": ("MedicationRequest", "MedicationStatement"),
    "Test results": ("Observation",),
    "Visits": ("Appointment", "Encounter"),
    "Health issues": ("Condition",),
    "Care team": ("CareTeam",),
    "Messages": ("Communication",),
}
# type -> where to look for what it is, for a detail, for when it was: the first place that holds something
_PLACES: Final = {
    "AllergyIntolerance": (("code",), ("reaction.manifestation",), ("recordedDate", "onsetDateTime")),
    "MedicationRequest": (("medicationCodeableConcept", "medicationReference"), ("dosageInstruction.text",), ("authoredOn",)),
    "MedicationStatement": (
        ("medicationCodeableConcept", "medicationReference"), ("dosage.text",), ("effectiveDateTime", "effectivePeriod.start"),
    ),
    "Observation": (
        ("code",), ("valueQuantity", "valueCodeableConcept", "valueString", "valueInteger", "interpretation"),
        ("effectiveDateTime", "effectivePeriod.start", "issued"),
    ),
    "Appointment": (("serviceType", "appointmentType", "description"), ("participant.actor",), ("start",)),
    "Encounter": (("type", "serviceType", "class"), ("location.location", "participant.individual"), ("period.start",)),
    "Condition": (("code",), ("clinicalStatus",), ("onsetDateTime", "recordedDate")),
    "CareTeam": (("name", "category"), ("participant.member",), ("period.start",)),
    "Communication": (("payload.contentString",), ("topic", "reasonCode"), ("sent", "received")),
}  # fmt: skip
_DAY: Final = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)
_LONGEST: Final = 300  # characters of one text
_MOST: Final = 5  # values of one place
_RETRACTED: Final = "entered-in-error"


@dataclass(frozen=True, slots=True)
class Line:
    """``when`` is a day of the calendar as FHIR writes it, so that lines can be sorted by it; "" where none is told."""

    what: str
    detail: str
    when: str

    @property
    def day(self) -> str:
        """``when`` in words."""
        return format_date(self.when)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its lines, newest first; ``note`` says why there are none, or that there are more."""

    title: str
    lines: tuple[Line, ...]
    note: str


async def sections(context: LinkingContext, user: User, link: Link) -> list[Section]:
    """The whole page.  Raises Ended or Unreachable if the link as such does not work."""
    await links.valid_tokens(context, user, link)
    return await asyncio.gather(*(_section(context, user, link, title) for title in SECTIONS))


def line(resource: dict[str, Any]) -> Line:
    """One resource of a type in :data:`SECTIONS`, in words."""
    what, detail, when = _PLACES[resource["resourceType"]]
    day = _DAY.match(_first(resource, when))
    return Line(_first(resource, what) or "No description", _first(resource, detail), day.group() if day else "")


async def _section(context: LinkingContext, user: User, link: Link, title: str) -> Section:
    lines: list[Line] = []
    notes: dict[str, None] = {}
    for type in SECTIONS[title]:
        try:
            shared = await links.fetch(context, user, link, type)
        except NotSharedError:
            continue
        except LinkError as problem:
            notes[str(problem)] = None
            continue
        lines += [line(resource) for resource in shared.resources if not _retracted(resource)]
        if shared.more:
            notes["There is more than is shown here. See the other health system's own pages."] = None
    lines.sort(key=lambda one: one.when, reverse=True)
    return Section(title, tuple(lines), " ".join(notes) or ("" if lines else "Nothing was shared."))


def _retracted(resource: dict[str, Any]) -> bool:
    codes = {text for path in ("status", "verificationStatus.coding.code") for text in _words_at(resource, path)}
    return _RETRACTED in codes


def _first(resource: dict[str, Any], paths: tuple[str, ...]) -> str:
    for path in paths:
        if words := list(dict.fromkeys(_words_at(resource, path)))[:_MOST]:
            return ", ".join(words)
    return ""


def _words_at(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _words_at(one, path)
    elif not path:
        if text := _words(value).strip():
            yield text[:_LONGEST]
    elif isinstance(value, dict):
        name, _, rest = path.partition(".")
        yield from _words_at(value.get(name), rest)


def _words(value: object) -> str:
    """A text, number, CodeableConcept, Coding, Reference or Quantity in words; "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("value"), (int, Decimal)):
        unit = value.get("unit")
        return f"{value['value']} {unit}" if isinstance(unit, str) else str(value["value"])
    coded = value.get("coding")
    codings = [one for one in coded if isinstance(one, dict)] if isinstance(coded, list) else []
    named = [
        value.get("text"),
        *(one.get("display") for one in codings),
        value.get("display"),
        *(one.get("code") for one in codings),
    ]
    return next((text for text in named if isinstance(text, str) and text), "")
