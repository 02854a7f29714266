"""Pages of a record under ``/r/{key}``: its first page, a page for each section, one value with its trend, and the files of documents."""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from fhir_server.display.texts import objects, plain
from fhir_server.interactions.messages import header_fields
from fhir_server.portal import page_handlers, preferences
from fhir_server.portal.context import PortalContext
from fhir_server.portal.record import addresses, asking, home, items, kept, medicines, sections, trend, vaccination_proof
from fhir_server.portal.record.access_report import AccessReports
from fhir_server.portal.record.download import Downloads
from fhir_server.portal.record.opened import ABSENT, NOT_HERE, OpenRecord
from fhir_server.portal.record.reading import Ask, RecordReader, RefusedError
from fhir_server.portal.record.sections import SECTIONS, Section
from fhir_server.smart.accounts.sessions import Session
from fhir_server.web.forms import NO_STORE, address
from fhir_server.web.security_headers import NOT_A_PAGE

_STALE: Final = "This address is not valid, or not any more. Open the page again from the menu."
_BUSY: Final = "The server cannot show this page at the moment. Try again in a minute."
_FOREIGN: Final = "This form was made for another record, or it is too old. Nothing was changed. Open the page again."
_FAILURES: Final = {400: (400, _STALE), 403: (404, NOT_HERE), 404: (404, NOT_HERE), 410: (404, NOT_HERE)}
_SPECIAL: Final = frozenset(",$|\\")  # in the values of search parameters
_TREND: Final = 200  # values
_DOWNLOADS: Final = frozenset({"application/pdf", "image/png", "image/jpeg", "image/tiff", "text/plain"})

Show = Callable[[Request, OpenRecord], Awaitable[Response]]
Change = Callable[[Request, OpenRecord, dict[str, str]], Awaitable[Response]]


class RecordPages:
    """Handlers of the pages.  ``ask`` asks the FHIR API."""

    def __init__(self, context: PortalContext, ask: Ask) -> None:
        self.context = context
        self.smart = context.smart
        self._ask = ask

    def opened(self, show: Show) -> page_handlers.ShowHandler:
        """The handler of a page of the record that the address names: 404 if the person may not open such a record."""

        async def handler(request: Request, session: Session) -> Response:
            record = await self._open(request, session)
            if record is None:
                return page_handlers.render_failure(self.smart, ABSENT, 404, session)
            try:
                return await show(request, record)
            except RefusedError as refused:
                status, text = _FAILURES.get(refused.status, (503, _BUSY))
                return record.failure(text, status)

        return handler

    def changed(self, change: Change) -> page_handlers.FormHandler:
        """The handler of a form on a page of a record: refused unless the form was made for this record."""

        async def handler(request: Request, session: Session, form: dict[str, str]) -> Response:
            async def sealed(request: Request, record: OpenRecord) -> Response:
                if not hmac.compare_digest(record.seal.encode(), form.get("record", "").encode()):
                    return record.failure(_FOREIGN, 403)
                return await change(request, record, form)

            return await self.opened(sealed)(request, session)

        return handler

    async def _open(self, request: Request, session: Session) -> OpenRecord | None:
        """The record that the address names; None if the person may not open such a record."""
        user, now, key = session.user, self.smart.now(), str(request.path_params["key"])
        choice = addresses.find(self.smart, user, [one for _, one in session.records], key)
        if choice is None:
            return None
        reader = RecordReader(self._ask, self.context.caller(user, choice), now, address(request))
        known = await kept.load(self.smart.store, user, choice.patient, now)
        return OpenRecord(self.smart, session, choice, key, reader, known, await preferences.load(self.smart.store, user, now))

    async def show_section(self, request: Request, record: OpenRecord) -> Response:
        """A section: all its lists, or the page of one list that ``list`` and ``older`` name."""
        section = sections.find_section(request.path_params["section"])
        if section is None:
            return record.failure(ABSENT)
        one = section.listing(request.query_params.get("list", ""))
        cursor = request.query_params.get("older", "") if one else ""
        joined = None if one or not section.current else await self._medicines(record, section)
        listings = (one,) if one else [each for each in section.listings if joined is None or each.slug not in section.joined]
        shown = [await record.listed(listing, section.slug, cursor) for listing in listings]
        if one is None:
            await kept.note_opened(self.smart.store, record.session.user, record.choice.patient, section.slug, record.reader.now)
        return record.page("section.html", section=section, lists=shown, medicines=joined, asks=record.preferences.ask_since is not None)

    async def _medicines(self, record: OpenRecord, section: Section) -> dict[str, Any]:
        """The joined entries of the lists of medicines.  ``further``: those of the lists that have more."""
        parts, further = [], []
        for listing in (each for each in section.listings if each.slug in section.joined):
            found = await record.found(listing)
            if found is None:
                continue
            if found.next:
                further.append((listing, found.next))
            for resource in found.resources:
                item = items.item(resource, found.included, record.seen(section.slug))
                parts.append(medicines.Part(resource, item, found.included, listing.slug in section.current))
        joined = medicines.join(parts)
        now, ended = ([each for each in joined if each.is_current is wanted] for wanted in (True, False))
        return {"current": now, "ended": ended, "further": further}

    async def show_value(self, request: Request, record: OpenRecord) -> Response:
        """A measured value, and those of its kind over time."""
        section = sections.find_section(request.path_params["section"])
        found = await record.reader.search("Observation", [("_id", request.path_params["id"])])
        if len(found.resources) != 1:
            return record.failure()
        observation, seen = found.resources[0], record.seen("results")
        if seen.holds(observation, {}):
            return asking.ask(record, items.item(observation, {}, seen))
        codes = [(plain(coding.get("system")), plain(coding["code"])) for coding in _codings(observation) if "code" in coding]
        alike: tuple[dict[str, Any], ...] = found.resources
        if codes and _SPECIAL.isdisjoint("".join(map("".join, codes))):
            query = [("code", ",".join(map("|".join, codes))), ("status:not", "entered-in-error"), ("_sort", "-date")]
            found = await record.reader.search("Observation", query, count=_TREND)
            alike = found.resources
        shown = [items.item(one, {}, seen) for one in alike]
        drawn = trend.series(one for one in alike if not seen.holds(one, {}))
        view = {"item": items.item(observation, {}, seen), "alike": shown, "series": drawn, "has_more": bool(found.next)}
        return record.page("value.html", section=section or SECTIONS[0], **view)

    async def download(self, request: Request, record: OpenRecord) -> Response:
        """A file of a document or a report, as an attachment."""
        type, number = _FILES_OF.get(request.path_params["kind"], ""), request.path_params["number"]
        document = await record.reader.read(type, request.path_params["id"]) if type else {}
        attachments = items.attachments(document) if type else []
        found = dict(zip(map(str, range(len(attachments))), attachments, strict=True)).get(number, {})
        if not items.is_file(found):
            return record.failure()
        content, declared = await self._content(record, found)
        media = declared.partition(";")[0].strip().lower()
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": NOT_A_PAGE.decode()}
        return Response(content, headers=NO_STORE | headers, media_type=media if media in _DOWNLOADS else "application/octet-stream")

    async def _content(self, record: OpenRecord, attachment: dict[str, Any]) -> tuple[bytes, str]:
        """The content of a file (:func:`items.is_file`) and its media type.  Raises RefusedError."""
        if "data" in attachment:
            return b64decode(attachment["data"]), plain(attachment.get("contentType"))
        answer = await record.reader.content(plain(attachment["url"]))
        return answer.body, header_fields(answer.headers).get("content-type", "")


_FILES_OF: Final = {"documents": "DocumentReference", "reports": "DiagnosticReport"}


def _codings(observation: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(observation.get("code", {}).get("coding"))


def add_record(routes: APIRouter, context: PortalContext, ask: Ask) -> None:
    """Add the pages under ``/r``."""
    pages, downloads, reports = RecordPages(context, ask), Downloads(), AccessReports(context)
    root = addresses.PATH + "/{key}"
    shown: dict[str, Show] = {
        root: home.show,
        root + "/reports/{id}": asking.show_report,
        root + "/files/{kind}/{id}/{number}": pages.download,
        **{root + path: show for path, show in vaccination_proof.SHOWN.items()},
        root + "/download": downloads.show_form,
        root + "/download/file": downloads.show_file,
        root + "/access": reports.show,
        root + "/access/file": reports.show_file,
        root + "/{section}": pages.show_section,
        root + "/{section}/{id}": pages.show_value,
    }
    for path, show in shown.items():
        routes.add_api_route(path, page_handlers.show_handler(context.smart, "/", pages.opened(show)), methods=["GET"])
    forms: dict[str, Change] = {root + "/reports/{id}": asking.reveal_report, root + "/{section}/{id}": asking.reveal_value}
    for path, change in forms.items():
        routes.add_api_route(path, page_handlers.form_handler(context.smart, "/", pages.changed(change)), methods=["POST"])
