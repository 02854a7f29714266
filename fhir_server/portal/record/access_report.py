"""Who looked at a record, under ``/r/{key}/access``: the AuditEvents that the API gives to the person, by day and person, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from typing import Any, Final

from fastapi import Request, Response

from fhir_server.portal.context import PortalContext
from fhir_server.portal.record import looks
from fhir_server.portal.record.looks import Look
from fhir_server.portal.record.opened import OpenRecord
from fhir_server.portal.record.period import Period, PeriodError
from fhir_server.portal.record.reading import Found
from fhir_server.web.forms import NO_STORE
from fhir_server.web.security_headers import NOT_A_PAGE

_TYPE: Final = "AuditEvent"
_PAGE: Final = 200  # entries of a page
FILE: Final = 1000
"""Entries of a file, at most."""

_COLUMNS: Final = ("Date", "Time", "Who", "As what", "App", "What", "Purpose", "Refused")
_CUT: Final = "There are earlier entries that are not in this file. Choose an earlier last day to download them."
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class AccessReports:
    """Handlers of the page and of its file."""

    def __init__(self, context: PortalContext) -> None:
        self._context = context

    async def show(self, request: Request, record: OpenRecord) -> Response:
        """The page of a period, the newest first; ``older``: the cursor of a further page."""
        form, user = dict(request.query_params), record.session.user
        is_own = record.choice.patient == user.patient and await self._context.may_share(user, record.reader.now)
        view: dict[str, Any] = {"typed": form, "is_own": is_own}
        try:
            period = Period.of(form)
        except PeriodError as error:
            return record.refusal("access_report.html", str(error), days=[], following="", **view)
        found = await _found(record, period, _PAGE, form.get("older", ""))
        return record.page("access_report.html", days=list(looks.by_day(_looks(record, found))), following=found.next, **view)

    async def show_file(self, request: Request, record: OpenRecord) -> Response:
        """The entries of a period as CSV (RFC 4180), in UTF-8 with a byte order mark, which spreadsheets need."""
        try:
            period = Period.of(dict(request.query_params))
        except PeriodError as error:
            return record.failure(str(error), 400)
        found = await _found(record, period, FILE)
        content = "\ufeff" + table(_looks(record, found), is_cut=bool(found.next))
        headers = {
            "Content-Disposition": 'attachment; filename="access.csv"',
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": NOT_A_PAGE.decode(),
        }
        return Response(content.encode(), headers=NO_STORE | headers, media_type="text/csv; charset=utf-8")


async def _found(record: OpenRecord, period: Period, count: int, cursor: str = "") -> Found:
    query = [*period.bounds("date", "date", "ge", "le"), ("_include", "AuditEvent:agent")]
    return await record.reader.search(_TYPE, query, cursor, count)


def _looks(record: OpenRecord, found: Found) -> list[Look]:
    return list(looks.looks(found.resources, found.included, record.smart.zone))


def table(found: Iterable[Look], *, is_cut: bool = False) -> str:
    """The CSV of acts.  ``is_cut``: whether there are earlier ones, which its last line then says."""
    text = StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for look in found:
        refused = "yes" if look.refused else "no"
        cells = (f"{look.at:%Y-%m-%d}", f"{look.at:%H:%M:%S %Z}", look.who, look.role, look.app, look.act, look.purpose, refused)
        writer.writerow(map(_inert, cells))
    if is_cut:
        writer.writerow([_CUT])
    return text.getvalue()


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
