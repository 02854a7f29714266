"""The whole record as files, under ``/r/{key}/download``: FHIR JSON, a page, a PDF, and an International Patient Summary.

Each file is an answer of ``$everything`` or ``$summary`` that is asked for when it is downloaded, and nothing of it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Request, Response

from fhir_server import jsontext
from fhir_server.portal.record.opened import OpenRecord
from fhir_server.portal.record.period import Period, PeriodError
from fhir_server.record_files.making import FileMaker, TooLargeError
from fhir_server.record_files.task import Kind, Task
from fhir_server.web.dates import format_instant
from fhir_server.web.forms import NO_STORE
from fhir_server.web.security_headers import NOT_A_PAGE

PART: Final = 500
"""The resources of the patient in one file, at most.  A longer record has several files."""

_JSON: Final = "application/fhir+json"
_NO_FORMAT: Final = "Choose one of the kinds of file."
_NO_PERIOD: Final = "A patient summary is about today: it has no first and no last day."
_TOO_LARGE: Final = "This file would be too large to make. Choose a shorter period, or the FHIR JSON file, which has no such limit."


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.  ``operation``: what is asked of the API; ``made``: what is made of the answer, if it is not the file itself."""

    title: str
    about: str
    name: str
    media: str
    operation: str = "$everything"
    made: Kind | None = None


FORMATS: Final[Mapping[str, Format]] = {
    "pdf": Format("PDF", "To read, print or send", "record.pdf", "application/pdf", made="pdf"),
    "html": Format("Page", "One file that any browser shows, without a connection", "record.html", "text/html", made="html"),
    "json": Format("FHIR JSON", "All details, for apps and other health systems", "record.json", _JSON),
    "ips": Format("Patient summary", "", "summary.json", _JSON, operation="$summary"),
}


class Downloads:
    """Handlers of the page and of the files."""

    def __init__(self) -> None:
        self._maker = FileMaker()

    async def show_form(self, request: Request, record: OpenRecord) -> Response:
        return _form(record, {})

    async def show_file(self, request: Request, record: OpenRecord) -> Response:
        """A file; or, if the record has more than one file holds and no part was asked for, the page of parts."""
        form = dict(request.query_params)
        format = FORMATS.get(form.get("format", ""))
        if format is None:
            return _form(record, form, _NO_FORMAT)
        try:
            period = Period.of(form)
        except PeriodError as error:
            return _form(record, form, str(error), "from")
        path = ("Patient", record.choice.patient, format.operation)
        if format.operation == "$summary":
            return _form(record, form, _NO_PERIOD, "from") if period.is_bounded else _file(format, await record.reader.answer(path, ()))
        cursor = form.get("after", "")
        query = [*period.bounds("start", "end"), ("_count", str(PART)), *([("_page", cursor)] if cursor else [])]
        bundle = await record.reader.answer(path, tuple(query))
        following = _following(bundle)
        if (following or cursor) and "part" not in form:
            return _parts(record, format, form, following)
        return await self._made(record, format, period.words, bundle, is_part=bool(following or cursor))

    async def _made(self, record: OpenRecord, format: Format, period: str, bundle: bytes, *, is_part: bool) -> Response:
        if format.made is None:
            return _file(format, bundle)
        choice, made = record.choice, format_instant(record.reader.now, record.smart.zone)
        task = Task(format.made, choice.name, choice.relation, record.smart.organization, made, period, choice.note, is_part)
        try:
            return _file(format, await self._maker.make(task, bundle))
        except TooLargeError:
            return record.failure(_TOO_LARGE, 400)


def _following(bundle: bytes) -> str:
    """The cursor of the next page of an answer; "" if there is none."""
    links: dict[str, str] = {link["relation"]: link["url"] for link in jsontext.parse(jsontext.members(bundle).get("link", b"[]"))}
    return dict(parse_qsl(urlsplit(links.get("next", "")).query)).get("_page", "")


def _file(format: Format, content: bytes) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{format.name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": NOT_A_PAGE.decode(),
    }
    return Response(content, headers=NO_STORE | headers, media_type=format.media)


def _form(record: OpenRecord, form: Mapping[str, str], problem: str = "", field: str = "") -> Response:
    offered = [(name, format) for name, format in FORMATS.items() if format.operation == "$everything"]
    view: dict[str, Any] = {"invalid_field": field, "formats": offered, "typed": form}
    return record.refusal("download.html", problem, **view) if problem else record.page("download.html", **view)


def _parts(record: OpenRecord, format: Format, form: Mapping[str, str], following: str) -> Response:
    """The page of a part: it leads to the file, and to the next part."""
    asked = {name: form[name] for name in ("format", "from", "to") if form.get(name)}
    here = {"after": form["after"]} if form.get("after") else {}
    file = urlencode({**asked, **here, "part": "yes"})
    further = urlencode({**asked, "after": following}) if following else ""
    return record.page("download_part.html", format=format, file=file, further=further, is_first=not here, most=PART)
