"""The stored state of an import, and the step that advances it.

No background task runs.  Each status request fetches the next part of the current file and stores its resources, with the permissions of
that request; so the import survives a restart, and ends with the caller's access.  A part whose end was not recorded is read again:
what it stored is then there already, and no version is added.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server import budget
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import bulk_import_rows
from fhir_server.interactions.bulk_import_request import ImportFile
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.interactions.owned_jobs import OwnedJobs
from fhir_server.interactions.service import Service
from fhir_server.web.partial_fetch import ChangedError, Part, fetch_part
from fhir_server.web.public_fetch import UnfetchableError

LIFE: Final = 24 * 3600 * 1_000_000
MAX_IMPORTS: Final = 10  # of one owner at a time, from the kick-off until they are deleted or expire
_LOCK_LIFE: Final = 120 * 1_000_000  # after this time, another status request can continue the work of a process that died
_PART: Final = 512 * 1024  # bytes after which a part ends with the next line
_LINES: Final = 500  # of one part
_ATTEMPTS: Final = 3  # to fetch a part
_NO_IMPORT: Final = "There is no such import."
_NDJSON: Final = "application/fhir+ndjson, application/ndjson;q=0.9, */*;q=0.1"
# They say that the server cannot write now, which is nothing about the line.
_PASSING: Final = frozenset({"unauthenticated", "busy", "too_costly", "read_only", "too_many"})


class FileResult(msgspec.Struct, frozen=True):
    """How far a file is imported.

    ``offset``     the byte at which to continue
    ``line``       the number of lines before it
    ``validator``  what names the version of the file; see :class:`~fhir_server.web.partial_fetch.Part`
    ``stored``     the number of resources that are stored, or were there already
    ``refused``    the number of lines that were refused; ``pages``: of stored pages of their reasons
    ``failures``   how often in a row the file could not be fetched
    ``in_line``    whether ``offset`` is inside a line that is too long and was refused
    """

    offset: int = 0
    line: int = 0
    validator: str = ""
    stored: int = 0
    refused: int = 0
    pages: int = 0
    failures: int = 0
    in_line: bool = False
    is_done: bool = False


class Job(msgspec.Struct, frozen=True):
    """An import.

    ``owner``    see :func:`.owned_jobs.owner`
    ``request``  the URL of the kick-off, at the instant ``started``
    ``results``  how far each of the ``files`` is
    ``slot``     its place among the owner's (:data:`MAX_IMPORTS`)
    """

    owner: str
    request: str
    started: int
    files: tuple[ImportFile, ...]
    results: tuple[FileResult, ...]
    slot: int = -1

    @property
    def expires(self) -> int:
        """When the import is deleted, in microseconds since 1970 UTC."""
        return self.started + LIFE

    @property
    def current(self) -> int | None:
        """The number of the file that is imported now; None: all are done."""
        return next((number for number, result in enumerate(self.results) if not result.is_done), None)

    def with_result(self, number: int, result: FileResult) -> Job:
        """The import with this result of a file."""
        return msgspec.structs.replace(self, results=(*self.results[:number], result, *self.results[number + 1 :]))


JOBS: Final = OwnedJobs("import", "import-slot", Job, most=MAX_IMPORTS, what="imports of yours", absent=_NO_IMPORT)


async def delete(service: Service, id: str, owner: str, now: int) -> None:
    """Delete an import and the reasons of its refusals.  What it stored stays.  Raises Problem ``not_found``."""
    key_values = service.store.key_values
    job = await JOBS.remove(key_values, id, owner, now)
    for number, result in enumerate(job.results):
        for page in range(result.pages):
            await key_values.pop("import-errors", _errors_key(id, number, page), now)


async def errors(service: Service, id: str, number: int, page: int, now: int) -> bytes:
    """A page of the reasons of a file's refusals, an OperationOutcome a line.  Raises Problem ``not_found`` if it was deleted."""
    text = await service.store.key_values.get("import-errors", _errors_key(id, number, page), now)
    if text is None:
        raise Problem("not_found", _NO_IMPORT)
    return text


async def advance(service: Service, request: Request, audit: AuditContext, id: str, job: Job) -> Job:
    """Import the next part and return the advanced import; unchanged if it is done or another status request is working on it.

    Raises Problem ``not_found`` if it was deleted meanwhile: it stays deleted, and what was stored stays stored.
    """
    key_values = service.store.key_values
    if job.current is None or not await key_values.put_if_absent("import-turn", id, b"", request.now + _LOCK_LIFE):
        return job
    try:
        job, stored = await JOBS.find(key_values, id, job.owner, request.now)
        number = job.current
        if number is None:
            return job
        result, outcomes = await _import_part(service, request, audit, id, job, number)
        if outcomes:
            await key_values.put("import-errors", _errors_key(id, number, result.pages), b"".join(outcomes), job.expires)
            result = msgspec.structs.replace(result, refused=result.refused + len(outcomes), pages=result.pages + 1)
        job = job.with_result(number, result)
        if await key_values.replace_value("import", id, stored, msgspec.json.encode(job)):
            return job
        if outcomes and not await key_values.get("import", id, request.now):
            await key_values.pop("import-errors", _errors_key(id, number, result.pages - 1), request.now)
        return (await JOBS.find(key_values, id, job.owner, request.now))[0]
    finally:
        await key_values.pop("import-turn", id, request.now)


async def _import_part(
    service: Service, request: Request, audit: AuditContext, id: str, job: Job, number: int
) -> tuple[FileResult, list[bytes]]:
    """The result of a file after its next part, and the OperationOutcomes of what was refused of it."""
    file, result = job.files[number], job.results[number]
    try:
        part = await _fetched(service, file, result)
    except ChangedError:
        issue = Issue("conflict", f"The file changed while it was imported, after line {result.line}.")
        return msgspec.structs.replace(result, is_done=True), [bulk_import_rows.outcome_of((issue,))]
    except UnfetchableError:
        if result.failures + 1 < _ATTEMPTS:
            return msgspec.structs.replace(result, failures=result.failures + 1), []
        issue = Issue("not-found", f"The file cannot be fetched, after line {result.line}.")
        return msgspec.structs.replace(result, is_done=True), [bulk_import_rows.outcome_of((issue,))]
    lines, rest = _lines(part, service.parser.max_bytes)
    stored, offset, line, in_line, outcomes = 0, result.offset, result.line, result.in_line, list[bytes]()
    for text in lines[:_LINES]:
        if not in_line and text.strip():
            try:
                name = f"{id}/{number}/{line}"
                await bulk_import_rows.store(service, request, audit, file.type, text.strip(), name)
                stored += 1
            except Problem as problem:
                if problem.kind in _PASSING and (problem.kind != "too_costly" or line > result.line):
                    problem.let_go()
                    return _advanced(result, part, offset, line, stored, in_line=in_line), outcomes
                outcomes.append(bulk_import_rows.refusal(problem, line + 1))
                problem.let_go()
        offset, line, in_line = offset + len(text), line + 1, False
        await budget.give_way()
    if len(lines) <= _LINES and rest:  # a line that is longer than any resource may be
        if not in_line:
            outcomes.append(bulk_import_rows.refusal(service.parser.too_large, line + 1))
        offset, in_line = offset + len(rest), True
    advanced = _advanced(result, part, offset, line, stored, in_line=in_line)
    return msgspec.structs.replace(advanced, is_done=part.is_last and len(lines) <= _LINES), outcomes


def _advanced(result: FileResult, part: Part, offset: int, line: int, stored: int, *, in_line: bool) -> FileResult:
    return msgspec.structs.replace(
        result,
        offset=offset,
        line=line,
        validator=part.validator,
        stored=result.stored + stored,
        failures=0,
        in_line=in_line,
    )


async def _fetched(service: Service, file: ImportFile, result: FileResult) -> Part:
    """The next part of a file, for which the request holds memory.  Raises what :func:`fetch_part` raises, and Problem ``busy``."""
    spending, held, longest = budget.current(), 0, service.parser.max_bytes

    def is_enough(body: bytearray) -> bool:
        nonlocal held
        if spending is not None:
            spending.take_for_body(len(body) - held)
            held = len(body)
        return len(body) > longest or (len(body) >= _PART and b"\n" in body)

    network, hosts = service.sources
    part = await fetch_part(network, file.url, hosts, _NDJSON, result.offset, result.validator, is_enough)
    if not part.is_last and b"\n" not in part.body and len(part.body) <= longest:
        raise UnfetchableError  # less than a line: it would never end
    return part


def _lines(part: Part, longest: int) -> tuple[list[bytes], bytes]:
    """The lines of a part with their ends, and what is no whole line and too long for one.

    The beginning of a line that is not too long is left to the next part.
    """
    lines = _split(part.body)
    if part.is_last or not lines or lines[-1].endswith(b"\n"):
        return lines, b""
    return lines[:-1], lines[-1] if len(lines[-1]) > longest else b""


def _split(body: bytes) -> list[bytes]:
    """The lines, each with its newline; no other character ends a line of NDJSON."""
    lines = [line + b"\n" for line in body.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _errors_key(id: str, number: int, page: int) -> str:
    return f"{id}/{number}/{page}"
