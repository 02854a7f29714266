"""What the lists of a record show: rows, measured values, reports with their values, documents with their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fhir_server.consent.security_labels import is_persons_report
from fhir_server.display import Row, build_heading, build_row, values, warnings
from fhir_server.display.names import Json, with_names
from fhir_server.display.texts import first_text, objects, plain
from fhir_server.portal.record.reading import Found
from fhir_server.portal.record.seen import Seen
from fhir_server.portal.record.seen import members as values_of

_CORRECTED: Final = ("amended", "corrected", "appended")
_ALL: Final = Seen()
_BINARY: Final = re.compile(r"Binary/[A-Za-z0-9.-]{1,64}(/_history/[0-9]{1,10})?")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a document: its number among the document's, and its title."""

    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Item:
    """A resource in a list.

    ``id``        its logical id; ``type``: its resource type
    ``row``       what it says; of an Observation, the details are those that change its meaning
    ``found``     what was measured, one text each; ``range``: the reference ranges
    ``notes``     comments
    ``members``   the values of a report
    ``files``     what can be downloaded
    ``reported``  whether a patient or a proxy said it, not the practice
    ``is_new``    whether it arrived after the person last opened the list
    ``is_held``   whether it is a result that the person wants to be asked about: of ``row`` only name and date are there
    """

    type: str
    id: str
    row: Row
    found: tuple[str, ...] = ()
    range: str = ""
    notes: tuple[str, ...] = ()
    is_corrected: bool = False
    members: tuple[Item, ...] = ()
    files: tuple[File, ...] = ()
    reported: bool = False
    is_new: bool = False
    is_held: bool = False


def items(found: Found, seen: Seen = _ALL) -> Iterator[Item]:
    """The matches of a search."""
    for resource in found.resources:
        yield item(resource, found.included, seen)


def item(resource: Json, included: Mapping[str, Json], seen: Seen = _ALL) -> Item:
    """One resource; ``included``: those of the same answer by ``Type/id``."""
    is_new = seen.is_new(resource, included)
    if not seen.holds(resource, included):
        return replace(_shown(resource, included, seen), is_new=is_new)
    row = replace(build_heading(resource, included), standing="")
    return Item(resource["resourceType"], str(resource["id"]), row, is_new=is_new, is_held=True)


def _shown(resource: Json, included: Mapping[str, Json], seen: Seen) -> Item:
    named = with_names(resource, included)
    type, id, reported = resource["resourceType"], str(resource["id"]), _is_reported(resource)
    if type == "Observation":
        notes = tuple(filter(None, (plain(note.get("text")) for note in objects(resource.get("note")))))
        found, is_corrected = tuple(values.results(named)), resource.get("status") in _CORRECTED
        row = replace(build_heading(named, included), details=tuple(warnings(named)))
        return Item(type, id, row, found, values.reference_ranges(named), notes, is_corrected, reported=reported)
    row = build_row(named, included, files_elsewhere=True)
    if type == "DiagnosticReport":
        members = tuple(item(one, included, seen) for one in values_of(resource, included))
        return Item(type, id, row, members=members, files=tuple(_files(objects(resource.get("presentedForm")))), reported=reported)
    if type == "DocumentReference":
        return Item(type, id, row, files=tuple(_files(attachments(resource))), reported=reported)
    return Item(type, id, row, reported=reported)


def attachments(resource: Mapping[str, Any]) -> list[Json]:
    """The attachments of a document or a report, in order."""
    if resource["resourceType"] == "DiagnosticReport":
        return objects(resource.get("presentedForm"))
    return [found for content in objects(resource.get("content")) for found in objects(content.get("attachment"))]


def is_file(attachment: Mapping[str, Any]) -> bool:
    """Whether the content of an attachment is on this server: in it, or in a Binary."""
    return isinstance(attachment.get("data"), str) or _BINARY.fullmatch(plain(attachment.get("url"))) is not None


def _files(found: list[Json]) -> Iterator[File]:
    for number, attachment in enumerate(found):
        if is_file(attachment):
            yield File(number, first_text(attachment, "title") or "Document")


def _is_reported(resource: Mapping[str, Any]) -> bool:
    return any(map(is_persons_report, resource.get("meta", {}).get("tag", ())))
