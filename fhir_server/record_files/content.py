"""What a record's files say, in plain text: the same for each format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.consent.security_labels import REPORTED_BY
from fhir_server.display import build_row
from fhir_server.display.names import Json, name_of, with_names
from fhir_server.display.texts import objects, plain
from fhir_server.record_files.chapters import CHAPTERS, NAMED, OTHER, chapter_of
from fhir_server.record_files.task import Task
from fhir_server.web.dates import format_date

_ABOUT: Final = (
    "This file says in plain words what the record has. All details are in the FHIR JSON file of the same record. "
    "Documents and pictures are named here; their content is downloaded from the page of notes and documents."
)
_PART: Final = "This file is a part of the record: the record has more. The other parts are on the page from which it was downloaded."
_NOT_AVAILABLE: Final = "Not available here."
_REPORTED: Final = "Reported from home, not by the practice"
_WORD: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Entry:
    """A resource.  ``name``: its ``Type/id``; ``day``: its date in words, "" if it has none; ``when``: the same for sorting."""

    name: str
    what: str
    day: str
    details: tuple[str, ...]
    when: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A chapter with its entries, the newest first.  ``empty``: what it says if it has none."""

    title: str
    entries: tuple[Entry, ...]
    empty: str


@dataclass(frozen=True, slots=True)
class Content:
    """A file.  ``facts``: (label, text) about it; ``notes``: what to know before reading it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    parts: tuple[Part, ...]


def build(task: Task, bundle: bytes) -> Content:
    """The content of a file from a searchset Bundle: each of its resources is one entry."""
    entries: list[Json] = jsontext.parse(bundle).get("entry", [])
    named = {f"{one['resourceType']}/{one['id']}": one for one in (entry["resource"] for entry in entries)}
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        resource = entry["resource"]
        title = chapter_of(resource) if entry["search"]["mode"] == "match" else NAMED
        found.setdefault(title, []).append(_entry(resource, named))
    titles = [*(chapter.title for chapter in CHAPTERS), *(title for title in (OTHER, NAMED) if title in found)]
    parts = tuple(Part(title, _newest_first(found.get(title, [])), _empty(task)) for title in titles)
    facts = (("Record of", task.name), ("Opened as", task.relation), ("From", task.organization), ("Made on", task.made))
    notes = filter(None, (_PART if task.is_part else "", task.withheld, _ABOUT))
    return Content("Health record", (*facts, ("Contains", task.period)), tuple(notes), parts)


def _empty(task: Task) -> str:
    """What an empty chapter says.  It follows from who asks and for what, never from rows."""
    if task.withheld:
        return _NOT_AVAILABLE
    return "None in this part of the record." if task.is_part else "None recorded."


def _newest_first(entries: list[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.when, reverse=True))


def _entry(resource: Json, named: Mapping[str, Json]) -> Entry:
    type = str(resource["resourceType"])
    row = build_row(with_names(resource, named), named)
    kind = _WORD.sub(" ", type).capitalize()
    details = [kind, row.standing, *row.details, *_person(resource)]
    if any(tag.get("system") == REPORTED_BY for tag in objects(resource.get("meta", {}).get("tag"))):
        details.append(_REPORTED)
    return Entry(f"{type}/{resource['id']}", name_of(resource) or row.what, row.day, tuple(filter(None, details)), row.when)


def _person(resource: Mapping[str, Any]) -> Iterator[str]:
    """What identifies a person, and how to reach the person."""
    if birth := format_date(plain(resource.get("birthDate"))):
        yield f"Born: {birth}"
    for identifier in objects(resource.get("identifier")) if resource["resourceType"] == "Patient" else ():
        if value := plain(identifier.get("value")):
            yield f"Number: {value}"
    for contact in objects(resource.get("telecom")):
        if value := plain(contact.get("value")):
            yield f"Contact: {value}"
    for place in objects(resource.get("address")):
        lines = [plain(line) for line in place.get("line", ())] if isinstance(place.get("line"), list) else []
        if text := plain(place.get("text")) or ", ".join(filter(None, (*lines, plain(place.get("postalCode")), plain(place.get("city"))))):
            yield f"Address: {text}"
