"""A new result on a page of its own, for people who want to be asked before it is shown.

Until the person asks for it, the pages have a result's name and date alone: lists, the first page, trends and the page of the value itself
are made without the rest of it.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request, Response

from fhir_server.portal import page_handlers
from fhir_server.portal.record import items, kept
from fhir_server.portal.record.opened import ABSENT, OpenRecord
from fhir_server.portal.record.reading import Found
from fhir_server.portal.record.sections import REPORTS, find_section
from fhir_server.portal.record.seen import members, name

_REPORT: Final = (("_include", "DiagnosticReport:result"), ("_include", "DiagnosticReport:performer"))


async def show_report(request: Request, record: OpenRecord) -> Response:
    """A report with its values.  Raises RefusedError."""
    found = await _report(request, record)
    if not found.resources:
        return record.failure()
    item = items.item(found.resources[0], found.included, record.seen("results"))
    if item.is_held:
        return ask(record, item)
    shown = {"listing": REPORTS, "entries": [item], "next": "", "is_cut": found.is_cut, "is_refused": False}
    return record.page("report.html", shown=shown)


async def reveal_report(request: Request, record: OpenRecord, form: dict[str, str]) -> Response:
    """The person asks for a report: it is shown from now on, with its values.  Raises RefusedError."""
    found = await _report(request, record)
    if not found.resources:
        return record.failure()
    report = found.resources[0]
    await _note(record, [name(report), *map(name, members(report, found.included))])
    return page_handlers.redirect_to(f"{record.path}/reports/{report['id']}")


async def reveal_value(request: Request, record: OpenRecord, form: dict[str, str]) -> Response:
    """The person asks for a value.  Raises RefusedError."""
    section = find_section(request.path_params["section"])
    if section is None:
        return record.failure(ABSENT)
    found = await record.reader.search("Observation", [("_id", request.path_params["id"])])
    if not found.resources:
        return record.failure()
    await _note(record, [name(found.resources[0])])
    return page_handlers.redirect_to(f"{record.path}/{section.slug}/{found.resources[0]['id']}")


def ask(record: OpenRecord, item: items.Item, **view: Any) -> Response:
    """The page of a result that is not shown yet.  Its form is sent to the address of the page."""
    return record.page("ask.html", item=item, **view)


async def _report(request: Request, record: OpenRecord) -> Found:
    return await record.reader.search("DiagnosticReport", [("_id", request.path_params["id"]), *_REPORT])


async def _note(record: OpenRecord, results: list[str]) -> None:
    await kept.note_shown(record.smart.store, record.session.user, record.choice.patient, results, record.reader.now)
