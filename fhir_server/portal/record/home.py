"""The first page of a record: what comes next, what is new, what waits, what is to be paid, and the way to everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from fastapi import Request, Response

from fhir_server.clock import SECOND, instant_text
from fhir_server.portal.record import sections
from fhir_server.portal.record.opened import OpenRecord
from fhir_server.portal.record.sections import SECTIONS, Section

_NEW_DAYS: Final = 30
_MONTH: Final = _NEW_DAYS * 24 * 3600 * SECOND
_VISITS: Final = 1
_FEW: Final = 5  # entries of another list
_MESSAGES: Final = 20  # unread messages that are told apart by their number
_NEWEST: Final = ("_sort", "-_lastUpdated")


async def show(request: Request, record: OpenRecord) -> Response:
    """The page.  Raises RefusedError."""
    # The request itself is of now: who may see what is decided at its instant.
    results = replace(sections.REPORTS, query=(*sections.REPORTS.query, ("date", f"ge{instant_text(record.reader.now - _MONTH)}")))
    unread = await _unread(record)
    accounts = replace(sections.ACCOUNTS, query=(("status", "active"), ("_sort", "-period")))
    return record.page(
        "record.html",
        days=_NEW_DAYS,
        coming=await record.listed(sections.COMING, "visits", count=_VISITS),
        new=await record.listed(results, "results", count=_FEW),
        unread=unread,
        waiting=await record.listed(sections.TASKS, "requests", count=_FEW),
        balance=await record.listed(accounts, "bills", count=_FEW),
        news=[section.slug for section in SECTIONS if await _is_new(record, section)],
    )


async def _unread(record: OpenRecord) -> dict[str, Any]:
    """The messages to the person that came since the person last opened the messages."""
    to_the_person = ("recipient", record.reader.caller.fhir_user or "")
    listing = replace(sections.MESSAGES, query=(to_the_person, *sections.MESSAGES.conditions, _NEWEST))
    found = await record.found(listing, count=_MESSAGES)
    if found is None:
        return {"is_refused": True, "number": 0, "is_more": False}
    seen = record.seen("messages")
    number = sum(seen.opened is None or seen.is_new(one, found.included) for one in found.resources)
    return {"is_refused": False, "number": number, "is_more": number == _MESSAGES and bool(found.next)}


async def _is_new(record: OpenRecord, section: Section) -> bool:
    """Whether the newest entry of a list of the section came since the person last opened it."""
    seen = record.seen(section.slug)
    for listing in section.listings if seen.opened is not None else ():
        if listing.slug in section.news:
            found = await record.found(replace(listing, query=(*listing.conditions, _NEWEST)), count=1)
            if found is not None and any(seen.is_new(one, found.included) for one in found.resources):
                return True
    return False
