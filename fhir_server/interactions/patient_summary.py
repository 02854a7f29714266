"""``Patient/[id]/$summary``: an International Patient Summary, version 1.1 (http://hl7.org/fhir/uv/ips/STU1.1/OperationDefinition-summary.html).

A document Bundle of what the caller sees.  A required section without a visible entry always says the same, that no information is
available, and another section without one is absent: so nothing tells whether there are entries that the caller does not see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape

from fhir_server import budget, jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import SECOND, instant_text
from fhir_server.errors import Problem
from fhir_server.interactions import document_bundle, preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.newest_by_code import Newest, newest_by_code
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.interactions.service import Service
from fhir_server.interactions.summary_sections import SECTIONS, Section, Source
from fhir_server.resources import catalog
from fhir_server.search import query as queries
from fhir_server.search.filters import EVERYTHING, AllOf, Filter, OfPatient

_PROFILES: Final = "http://hl7.org/fhir/uv/ips/StructureDefinition"
_LOINC: Final = "http://loinc.org"
_XHTML: Final = 'xmlns="http://www.w3.org/1999/xhtml"'
_MOST: Final = 200  # entries of a section, from each source
_CONSIDERED: Final = 10_000  # results among which the newest of each code are chosen
_DAYS: Final = (365, 30)  # if there are more: of the last so many days
_EMPTY: Final = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/list-empty-reason", "code": "unavailable", "display": "Unavailable"}]
}
_NOTHING: Final = "No information is available."
# where a resource says what it is, and when it was
_CODES: Final = ("code", "medicationCodeableConcept", "vaccineCode")
_DATES: Final = (
    "onsetDateTime", "recordedDate", "effectiveDateTime", "effectivePeriod", "authoredOn", "occurrenceDateTime", "performedDateTime",
    "performedPeriod", "timingDateTime", "recordedOn",
)  # fmt: skip
_STATUSES: Final = ("status", "clinicalStatus")
_NO_CHARACTERS: Final = dict.fromkeys((0xFFFE, 0xFFFF), "\N{REPLACEMENT CHARACTER}")  # texts may have them, XML may not


async def summary(view: View, request: Request, service: Service) -> Response:
    """The summary of a patient.  Raises Problem ``forbidden``, ``not_found``, ``gone`` or ``invalid``."""
    admit(view.permissions, request.path[0])
    preconditions.require_only(request)
    pairs = (*request.query, *parameters_in(request)) if request.method == "POST" else request.query
    for name, value in pairs:
        if name not in ("profile", "_format", "_pretty") or (name == "profile" and value != f"{_PROFILES}/Bundle-uv-ips"):
            raise Problem("invalid", f"$summary of a patient takes only profile={_PROFILES}/Bundle-uv-ips.")
    patient = await view.read(*request.path[:2])
    found = [(section, await _rows(view, patient.id, section)) for section in SECTIONS]
    rows = list({f"{row.type}/{row.id}": row for _, each in found for row in each}.values())
    shared = frozenset(name for name in catalog() if not catalog()[name].subjects)
    others = await document_bundle.referred(view, [patient, *rows], shared)
    author, device = _author(service.base)
    composition = await _composition(view, patient, found, author, service.base)
    entries = [
        composition,
        document_bundle.entry(patient, service.base),
        (author, device),
        *(document_bundle.entry(row, service.base) for row in (*rows, *others)),
    ]
    parts = document_bundle.document(entries, service.base, view.now, f"{_PROFILES}/Bundle-uv-ips")
    return Response(200, headers=((b"content-type", JSON),), parts=parts)


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to read the patient.  Raises Problem ``forbidden``."""
    permissions.require(type, "r")


async def _rows(view: View, patient: str, section: Section) -> list[VisibleVersion]:
    """The visible resources of a section, at most so many of each source."""
    return [row for source in section.sources for row in await _of_source(view, patient, source)]


async def _of_source(view: View, patient: str, source: Source) -> list[VisibleVersion]:
    where = AllOf((OfPatient(frozenset({patient})), source.where))
    if not source.newest_of_each_code:
        return await view.find_included(source.type, where, _MOST)
    if not view.permissions.scopes(source.type, "r") and not view.permissions.scopes(source.type, "s"):
        return []
    return await view.in_order(source.type, (await _newest(view, source.type, where))[:_MOST])


async def _newest(view: View, type: str, where: Filter) -> Newest:
    """The newest of each code: of all, or else of the longest period that has not too many.  Raises Problem ``too_costly``."""
    periods = [EVERYTHING, *(_since(type, view.now, days) for days in _DAYS)]
    for period in periods[:-1]:
        try:
            return await newest_by_code(view, type, AllOf((where, period)), 1, _CONSIDERED, interactions="rs")
        except Problem as problem:
            if problem.kind != "too_costly":
                raise
            problem.let_go()
    return await newest_by_code(view, type, AllOf((where, periods[-1])), 1, _CONSIDERED, interactions="rs")


def _since(type: str, now: int, days: int) -> Filter:
    day = instant_text(now - days * 86400 * SECOND)[:10]
    return queries.condition(type, [("date", f"ge{day}")], now, "")


def _author(base: str) -> document_bundle.Entry:
    """This server, which assembled the summary, as a Device."""
    url = f"urn:uuid:{uuid5(NAMESPACE_URL, base + '/summary-author')}"
    device = {
        "resourceType": "Device", "id": url.removeprefix("urn:uuid:"),
        "deviceName": [{"name": "Software that assembled this summary", "type": "other"}],
    }  # fmt: skip
    return url, json.dumps(device).encode()


async def _composition(
    view: View, patient: VisibleVersion, found: Sequence[tuple[Section, Sequence[VisibleVersion]]], author: str, base: str
) -> document_bundle.Entry:
    url = f"urn:uuid:{uuid5(NAMESPACE_URL, f'{base}/Patient/{patient.id}/summary')}"
    composition = {
        "resourceType": "Composition",
        "id": url.removeprefix("urn:uuid:"),
        "meta": {"profile": [f"{_PROFILES}/Composition-uv-ips"]},
        "status": "final",
        "type": {"coding": [{"system": _LOINC, "code": "60591-5", "display": "Patient summary Document"}]},
        "subject": {"reference": f"{base}/Patient/{patient.id}"},
        "date": instant_text(view.now),
        "author": [{"reference": author}],
        "title": "Patient Summary",
        "section": [await _section(section, rows, base) for section, rows in found if rows or section.required],
    }
    return url, json.dumps(composition, ensure_ascii=False).encode()


async def _section(section: Section, rows: Sequence[VisibleVersion], base: str) -> dict[str, Any]:
    lines = await budget.each(lambda row: f"<li>{escape(_line(row).translate(_NO_CHARACTERS))}</li>", rows)
    listed = f"<ul>{''.join(lines)}</ul>" if lines else f"<p>{_NOTHING}</p>"
    content: dict[str, Any] = {"entry": [{"reference": f"{base}/{row.type}/{row.id}"} for row in rows]} if rows else {"emptyReason": _EMPTY}
    return {
        "title": section.title,
        "code": {"coding": [{"system": _LOINC, "code": section.code, "display": section.display}]},
        "text": {"status": "generated", "div": f"<div {_XHTML}>{listed}</div>"},
        **content,
    }


def _line(row: VisibleVersion) -> str:
    """What the narrative says of a resource: what it is, its value, its status and its time, as far as the caller sees them."""
    value = jsontext.parse(row.body)
    said = [_text(value[name]) for name in _CODES if name in value][:1] or [_referred(value) or row.type]
    said += [_text(value[name]) for name in value if name.startswith("value")]
    said += [_text(value[name]) for name in _STATUSES if name in value][:1]
    said += [_text(value[name]) for name in _DATES if name in value][:1]
    return ", ".join(text for text in said if text)


def _referred(value: dict[str, Any]) -> str:
    """The text of the reference that stands for a code: of a medication, or of a device."""
    reference = value.get("medicationReference") or value.get("device") or {}
    return str(reference.get("display", ""))


def _text(value: Any) -> str:
    """A value as people read it: a text, a code, a quantity, a period."""
    if not isinstance(value, dict):
        return str(value)
    if "coding" in value or "text" in value:
        codings = value.get("coding", [])
        return str(value.get("text") or next((one.get("display") or one.get("code") for one in codings if one), ""))
    if "value" in value:
        return f"{value.get('comparator', '')}{value['value']} {value.get('unit') or value.get('code') or ''}".strip()
    if "start" in value or "end" in value:
        return f"{value.get('start', '')} to {value.get('end', '')}".strip()
    return ""
