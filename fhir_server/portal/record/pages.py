"""Pages of a record under ``/r/{key}``: its first page, a page for each section, one value with its trend, and the files of documents."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from fhir_server.clock import SECOND
from fhir_server.display.texts import objects, plain
from fhir_server.interactions.messages import header_fields
from fhir_server.portal import page_handlers
from fhir_server.portal.context import PortalContext
from fhir_server.portal.record import addresses, items, sections, trend, vaccination_proof
from fhir_server.portal.record.reading import Ask, RecordReader, RefusedError
from fhir_server.portal.record.sections import SECTIONS, Listing
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.web.forms import NO_STORE, address
from fhir_server.web.security_headers import NOT_A_PAGE

_ABSENT: Final = "There is no such page. The record may no longer be open to you: your records are on the first page."
_NOT_HERE: Final = "This entry is not in the record that you have open."
_STALE: Final = "This address is not valid, or not any more. Open the page again from the menu."
_BUSY: Final = "The server cannot show this page at the moment. Try again in a minute."
_FAILURES: Final = {400: (400, _STALE), 403: (404, _NOT_HERE), 404: (404, _NOT_HERE), 410: (404, _NOT_HERE)}
_SPECIAL: Final = frozenset(",$|\\")  # in the values of search parameters
_TREND: Final = 200  # values
_NEW_DAYS: Final = 30
_FEW: Final = 5  # entries of a list on the first page
_DOWNLOADS: Final = frozenset({"application/pdf", "image/png", "image/jpeg", "image/tiff", "text/plain"})
_MONTH: Final = _NEW_DAYS * 24 * 3600 * SECOND


@dataclass(frozen=True, slots=True)
class _Open:
    """The record that a request opens.  ``records``: all that the person may open."""

    session: Session
    choice: RecordChoice
    key: str
    records: Sequence[RecordChoice]
    reader: RecordReader
    pages: RecordPages

    def page(self, template: str, **view: Any) -> Response:
        return self.pages._page(self, template, **view)

    @property
    def path(self) -> str:
        return f"{addresses.PATH}/{self.key}"


Show = Callable[[Request, _Open], Awaitable[Response]]


class RecordPages:
    """Handlers of the pages.  ``ask`` asks the FHIR API."""

    def __init__(self, context: PortalContext, ask: Ask) -> None:
        self.context = context
        self.smart = context.smart
        self._ask = ask

    def opened(self, show: Show) -> page_handlers.ShowHandler:
        """The handler of a page of the record that the address names: 404 if the person may not open such a record."""

        async def handler(request: Request, session: Session) -> Response:
            now, key = self.smart.now(), str(request.path_params["key"])
            records = await self.context.records(session.user, now)
            choice = addresses.find(self.smart, session.user, records, key) if session.user.role == "patient" else None
            if choice is None:
                return page_handlers.render_failure(self.smart, _ABSENT, 404, session)
            reader = RecordReader(self._ask, self.context.caller(session.user, choice), now, address(request))
            try:
                return await show(request, _Open(session, choice, key, records, reader, self))
            except RefusedError as refused:
                status, text = _FAILURES.get(refused.status, (503, _BUSY))
                return page_handlers.render_failure(self.smart, text, status, session)

        return handler

    async def show_record(self, request: Request, record: _Open) -> Response:
        """The first page: what comes next, what is new, and the sections."""
        since = ("date", f"ge{sections.NOW}")
        new = replace(sections.REPORTS, query=(*sections.REPORTS.query, since))
        earlier = replace(record.reader, now=record.reader.now - _MONTH)
        coming = await self._shown(record.reader, sections.COMING, count=_FEW)
        return self._page(record, "record.html", coming=coming, new=await self._shown(earlier, new, count=_FEW), days=_NEW_DAYS)

    async def show_section(self, request: Request, record: _Open) -> Response:
        """A section: all its lists, or the page of one list that ``list`` and ``older`` name."""
        section = sections.find_section(request.path_params["section"])
        if section is None:
            return page_handlers.render_failure(self.smart, _ABSENT, 404, record.session)
        one = section.listing(request.query_params.get("list", ""))
        cursor = request.query_params.get("older", "") if one else ""
        shown = [await self._shown(record.reader, listing, cursor) for listing in ((one,) if one else section.listings)]
        return self._page(record, "section.html", section=section, lists=shown)

    async def show_value(self, request: Request, record: _Open) -> Response:
        """A measured value, and those of its kind over time."""
        section = sections.find_section(request.path_params["section"])
        found = await record.reader.search("Observation", [("_id", request.path_params["id"])])
        if len(found.resources) != 1:
            return page_handlers.render_failure(self.smart, _NOT_HERE, 404, record.session)
        observation = found.resources[0]
        codes = [(plain(coding.get("system")), plain(coding["code"])) for coding in _codings(observation) if "code" in coding]
        alike: tuple[dict[str, Any], ...] = found.resources
        if codes and _SPECIAL.isdisjoint("".join(map("".join, codes))):
            query = [("code", ",".join(map("|".join, codes))), ("status:not", "entered-in-error"), ("_sort", "-date")]
            found = await record.reader.search("Observation", query, count=_TREND)
            alike = found.resources
        shown = [items.item(one, {}) for one in alike]
        view = {"item": items.item(observation, {}), "alike": shown, "series": trend.series(alike), "has_more": bool(found.next)}
        return self._page(record, "value.html", section=section or SECTIONS[0], **view)

    async def download(self, request: Request, record: _Open) -> Response:
        """A file of a document or a report, as an attachment."""
        type, number = _FILES_OF.get(request.path_params["kind"], ""), request.path_params["number"]
        document = await record.reader.read(type, request.path_params["id"]) if type else {}
        attachments = items.attachments(document) if type else []
        found = dict(zip(map(str, range(len(attachments))), attachments, strict=True)).get(number, {})
        if not items.is_file(found):
            return page_handlers.render_failure(self.smart, _NOT_HERE, 404, record.session)
        content, declared = await self._content(record, found)
        media = declared.partition(";")[0].strip().lower()
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": NOT_A_PAGE.decode()}
        return Response(content, headers=NO_STORE | headers, media_type=media if media in _DOWNLOADS else "application/octet-stream")

    async def _content(self, record: _Open, attachment: dict[str, Any]) -> tuple[bytes, str]:
        """The content of a file (:func:`items.is_file`) and its media type.  Raises RefusedError."""
        if "data" in attachment:
            return b64decode(attachment["data"]), plain(attachment.get("contentType"))
        answer = await record.reader.content(plain(attachment["url"]))
        return answer.body, header_fields(answer.headers).get("content-type", "")

    async def _shown(self, reader: RecordReader, listing: Listing, cursor: str = "", count: int = 0) -> dict[str, Any]:
        """A list for a template; ``is_refused``: the access to the record does not include what it lists."""
        try:
            found = await (reader.find(listing, cursor, count) if count else reader.find(listing, cursor))
        except RefusedError as refused:
            if refused.status != 403:
                raise
            return {"listing": listing, "entries": [], "next": "", "is_cut": False, "is_refused": True}
        entries = list(items.items(found))
        return {"listing": listing, "entries": entries, "next": found.next, "is_cut": found.is_cut, "is_refused": False}

    def _page(self, record: _Open, template: str, **view: Any) -> Response:
        user, records = record.session.user, record.records
        choices = [(f"{addresses.PATH}/{addresses.key_of(self.smart, user, one.patient)}", one) for one in records]
        common: dict[str, Any] = {
            "session": record.session,
            "choice": record.choice,
            "choices": choices,
            "record": record.path,
            "sections": SECTIONS,
        }
        return page_handlers.render(self.smart, template, **common, **view)


_FILES_OF: Final = {"documents": "DocumentReference", "reports": "DiagnosticReport"}


def _codings(observation: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(observation.get("code", {}).get("coding"))


def add_record(routes: APIRouter, context: PortalContext, ask: Ask) -> None:
    """Add the pages under ``/r``."""
    pages = RecordPages(context, ask)
    root = addresses.PATH + "/{key}"
    shown: dict[str, Show] = {
        root: pages.show_record,
        root + "/files/{kind}/{id}/{number}": pages.download,
        **{root + path: show for path, show in vaccination_proof.SHOWN.items()},
        root + "/{section}": pages.show_section,
        root + "/{section}/{id}": pages.show_value,
    }
    for path, show in shown.items():
        routes.add_api_route(path, page_handlers.show_handler(context.smart, "/", pages.opened(show)), methods=["GET"])
