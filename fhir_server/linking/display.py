"""Formats another system's resources as lines of text for the page.

The JSON comes from another server and can contain anything. Values of an unexpected shape are left out, and no value becomes
a link or markup.
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
# resource type -> paths of the name, of a detail, and of the date; the first path that has a value is used
_PATHS: Final = {
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
_DATE: Final = re.compile(r"\d{4}(-\d\d){0,2}", re.ASCII)
_MAX_TEXT: Final = 300  # characters of one value
_MAX_VALUES: Final = 5  # values of one path
_RETRACTED: Final = "entered-in-error"


@dataclass(frozen=True, slots=True)
class Line:
    """One resource. ``when`` is a FHIR date, by which lines are sorted; "" if there is none."""

    what: str
    detail: str
    when: str

    @property
    def day(self) -> str:
        """``when``, formatted for the page."""
        return format_date(self.when)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page, with its lines, the newest first. ``note`` explains why lines are missing; "" if none are."""

    title: str
    lines: tuple[Line, ...]
    note: str


async def load_sections(context: LinkingContext, user: User, link: Link) -> list[Section]:
    """Fetch all sections of the page. Raises LinkEndedError or UnreachableError if the link itself does not work."""
    await links.get_valid_tokens(context, user, link)
    return await asyncio.gather(*(_section(context, user, link, title) for title in SECTIONS))


def build_line(resource: dict[str, Any]) -> Line:
    """Format a resource of a type in :data:`SECTIONS`."""
    what, detail, when = _PATHS[resource["resourceType"]]
    date = _DATE.match(_first_text(resource, when))
    return Line(_first_text(resource, what) or "No description", _first_text(resource, detail), date.group() if date else "")


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
        lines += [build_line(resource) for resource in shared.resources if not _is_retracted(resource)]
        if shared.more:
            notes["This list is incomplete. See the other health system's website for the rest."] = None
    lines.sort(key=lambda line: line.when, reverse=True)
    return Section(title, tuple(lines), " ".join(notes) or ("" if lines else "The other health system shared nothing here."))


def _is_retracted(resource: dict[str, Any]) -> bool:
    codes = {text for path in ("status", "verificationStatus.coding.code") for text in _texts_at(resource, path)}
    return _RETRACTED in codes


def _first_text(resource: dict[str, Any], paths: tuple[str, ...]) -> str:
    for path in paths:
        if texts := list(dict.fromkeys(_texts_at(resource, path)))[:_MAX_VALUES]:
            return ", ".join(texts)
    return ""


def _texts_at(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _texts_at(item, path)
    elif not path:
        if text := _text_of(value).strip():
            yield text[:_MAX_TEXT]
    elif isinstance(value, dict):
        name, _, rest = path.partition(".")
        yield from _texts_at(value.get(name), rest)


def _text_of(value: object) -> str:
    """Return the text of a string, number, CodeableConcept, Coding, Reference or Quantity; "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("value"), (int, Decimal)):
        unit = value.get("unit")
        return f"{value['value']} {unit}" if isinstance(unit, str) else str(value["value"])
    listed = value.get("coding")
    codings = [coding for coding in listed if isinstance(coding, dict)] if isinstance(listed, list) else []
    candidates = [
        value.get("text"),
        *(coding.get("display") for coding in codings),
        value.get("display"),
        *(coding.get("code") for coding in codings),
    ]
    return next((text for text in candidates if isinstance(text, str) and text), "")
