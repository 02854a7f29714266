"""The first page of a record: what comes next, what is new, what waits, what is to be paid, and the way to everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import Request, Response

from fhir_server.clock import SECOND, instant_text
from fhir_server.portal.record import sections
from fhir_server.portal.record.opened import OpenRecord
from fhir_server.portal.record.reading import RefusedError
from fhir_server.portal.record.sections import NOW, SECTIONS, Section

_NEW_DAYS: Final = 30
_MONTH: Final = _NEW_DAYS * 24 * 3600 * SECOND
_VISITS: Final = 1
_FEW: Final = 5  # entries of another list


async def show(request: Request, record: OpenRecord) -> Response:
    """The page.  Raises RefusedError."""
    month = replace(record, reader=replace(record.reader, now=record.reader.now - _MONTH))
    results = replace(sections.REPORTS, query=(*sections.REPORTS.query, ("date", f"ge{NOW}")))
    accounts = replace(sections.ACCOUNTS, query=(("status", "active"), ("_sort", "-period")))
    return record.page(
        "record.html",
        days=_NEW_DAYS,
        coming=await record.listed(sections.COMING, "visits", count=_VISITS),
        new=await month.listed(results, "results", count=_FEW),
        unread=await _unread(record),
        waiting=await record.listed(sections.TASKS, "requests", count=_FEW),
        balance=await record.listed(accounts, "bills", count=_FEW),
        news=[section.slug for section in SECTIONS if await _is_new(record, section)],
    )


async def _unread(record: OpenRecord) -> int | None:
    """How many messages to the person came since the person last opened the messages; None if the access does not include messages."""
    query = [("recipient", record.reader.caller.fhir_user or ""), *sections.MESSAGES.conditions, *_since(record, "messages")]
    try:
        return await record.reader.count(sections.MESSAGES.type, query)
    except RefusedError as refused:
        if refused.status != 403:
            raise
        return None


async def _is_new(record: OpenRecord, section: Section) -> bool:
    """Whether a list of the section has what came since the person last opened it."""
    since = _since(record, section.slug)
    for slug in section.news if since else ():
        listing = section.listing(slug)
        if listing is None:
            continue
        found = await record.found(replace(listing, query=(*listing.conditions, *since)), count=1)
        if found is not None and found.resources:
            return True
    return False


def _since(record: OpenRecord, section: str) -> list[tuple[str, str]]:
    opened = record.kept.opened.get(section)
    return [] if opened is None else [("_lastUpdated", f"gt{instant_text(opened)}")]
