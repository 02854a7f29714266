"""A Bulk Data export under way: which rows its owner was shown, page by page, and what of them she is shown now.

No process works on it by itself.  Each question for its state lets it go on for some pages, in the View of the one who
asks; so it survives the process that began it, and rests on nobody's rights of an hour ago.  What is kept are ids.  The
rows are read when a file is fetched, again in the View of that moment, as they stood when the export was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions.bulk_export_request import ExportRequest
from fhir_server.interactions.messages import Request
from fhir_server.interactions.service import Service
from fhir_server.search.filters import IdIs
from fhir_server.search.rows import Position

LIFE: Final = 24 * 3600 * 1_000_000
_TURN: Final = 60 * 1_000_000  # how long another question waits for one whose process died
_PAGE: Final = 500
_PAGES: Final = 40  # a question


class Job(msgspec.Struct, frozen=True):
    """``request`` is the kick-off's address, ``started`` its time; ``todo`` the types not yet finished, the current one first,
    ``after`` where to go on in it; ``pages`` counts the kept pages of ids by type.
    """

    owner: str
    request: str
    started: int
    asked: ExportRequest
    todo: tuple[str, ...]
    after: Position | None = None
    pages: dict[str, int] = {}

    @property
    def expires(self) -> int:
        return self.started + LIFE


def owner(permissions: Permissions) -> str:
    """Who an export belongs to: the client, the person and the record in context."""
    principal = permissions.principal
    return sha256(msgspec.json.encode((principal.client_id, principal.username, principal.patient))).hexdigest()


async def save(service: Service, id: str, job: Job) -> None:
    await service.store.key_values.put("export", id, msgspec.json.encode(job), job.expires)


async def find(service: Service, id: str, asker: str, now: int) -> Job:
    """The export of this id.  Raises Problem ``not_found`` if there is none, or it is another's."""
    text = await service.store.key_values.get("export", id, now)
    job = msgspec.json.decode(text, type=Job) if text else None
    if job is None or job.owner != asker:
        raise Problem("not_found", "This export is not known.")
    return job


async def delete(service: Service, id: str, job: Job, now: int) -> None:
    """Forget an export."""
    secrets = service.store.key_values
    await secrets.pop("export", id, now)
    for type, pages in job.pages.items():
        for number in range(pages):
            await secrets.pop("export-page", _page_key(id, type, number), now)


async def collect_next_pages(service: Service, request: Request, id: str, job: Job) -> Job:
    """The export some pages further on, unless another question has its turn just now."""
    secrets = service.store.key_values
    if not job.todo or not await secrets.put_if_absent("export-turn", id, b"", request.now + _TURN):
        return job
    try:
        job = await find(service, id, job.owner, request.now)
        enough = sum(job.pages.values()) + _PAGES
        while job.todo and sum(job.pages.values()) < enough:
            job = await _further(service, request, id, job)
            await asyncio.sleep(0)
        await save(service, id, job)
        return job
    finally:
        await secrets.pop("export-turn", id, request.now)


async def _further(service: Service, request: Request, id: str, job: Job) -> Job:
    type = job.todo[0]
    try:
        ids, after = await service.read_with_view(request, partial(_listed, job=job, base=service.base))
    except Problem as problem:
        if problem.kind != "invalid" or job.after is None:
            raise
        # The row behind which to go on has left the view: begin this type again.
        return msgspec.structs.replace(job, after=None, pages={**job.pages, type: 0})
    number = job.pages.get(type, 0)
    if ids:
        page = msgspec.json.encode(ids)
        await service.store.key_values.put("export-page", _page_key(id, type, number), page, job.expires)
        job = msgspec.structs.replace(job, pages={**job.pages, type: number + 1})
    return msgspec.structs.replace(job, after=after, todo=job.todo if after else job.todo[1:])


async def _listed(view: View, job: Job, base: str) -> tuple[list[str], Position | None]:
    type = job.todo[0]
    where = await job.asked.condition(view, type, base)
    look = view.find if type in job.asked.searches else view.find_readable
    page = await look(type, where, limit=_PAGE, after=job.after)
    return [row.id for row in page.versions], page.next


async def contents(service: Service, request: Request, id: str, job: Job, type: str) -> AsyncIterator[list[VisibleVersion]]:
    """The rows of one type, some at a time: those in view now, as they stood when the export was asked for."""
    for number in range(job.pages.get(type, 0)):
        text = await service.store.key_values.get("export-page", _page_key(id, type, number), request.now)
        ids = msgspec.json.decode(text or b"[]", type=list[str])
        rows = await service.read_with_view(request, partial(_as_of, type=type, ids=ids, time=job.started))
        if rows:
            yield rows


async def _as_of(view: View, type: str, ids: list[str], time: int) -> list[VisibleVersion]:
    page = await view.find_readable(type, IdIs(frozenset(ids)), limit=len(ids), after=None)
    rows = {seen.id: seen for seen in page.versions if seen.updated <= time}
    for id in set(ids) - set(rows):
        earlier = await _earlier(view, type, id, time)
        if earlier is not None:
            rows[id] = earlier
    return [rows[id] for id in ids if id in rows]


async def _earlier(view: View, type: str, id: str, time: int) -> VisibleVersion | None:
    try:
        past = [seen for seen in await view.history(type, id) if seen.updated <= time]
    except Problem as problem:
        if problem.kind not in ("not_found", "gone"):
            raise  # a failure of the moment must not pass for a row that is not there
        return None
    return past[-1] if past and past[-1].interaction != "delete" else None


def _page_key(id: str, type: str, number: int) -> str:
    return f"{id}/{type}/{number}"
