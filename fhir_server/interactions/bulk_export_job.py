"""The stored state of a Bulk Data export, and the steps that advance it.

No background task runs.  Each status request collects the ids of some pages of resources, in the View of that request; so
the export survives a restart and always uses the caller's current permissions.  Only ids are stored.  A file request reads
the resources in the View of that request, in the version that was current when the export started.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import msgspec

from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import bulk_export_deletions
from fhir_server.interactions.bulk_export_request import ExportRequest
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.interactions.owned_jobs import OwnedJobs
from fhir_server.interactions.service import Service
from fhir_server.search.filters import IdIs
from fhir_server.search.rows import Position

LIFE: Final = 24 * 3600 * 1_000_000
MAX_EXPORTS: Final = 30  # of one owner at a time, from the kick-off until they are deleted or expire
_LOCK_LIFE: Final = 60 * 1_000_000  # after this time, another status request can continue the work of a process that died
_PAGE: Final = 500
_PAGES: Final = 40  # pages per status request
_NO_EXPORT: Final = "There is no such export."


class Job(msgspec.Struct, frozen=True):
    """An export.

    ``owner``           see :func:`.owned_jobs.owner`
    ``request``         the URL of the kick-off request
    ``started``         its time, in microseconds since 1970 UTC
    ``remaining``       the parts that are not complete, the current one first: types, and their deletions
    ``after``           the position in the current part at which to continue
    ``pages``           the number of stored pages of ids, by part
    ``slot``            its place among the owner's exports (:data:`MAX_EXPORTS`); -1 for one of an earlier version
    """

    owner: str
    request: str
    started: int
    export_request: ExportRequest = msgspec.field(name="asked")
    remaining: tuple[str, ...] = msgspec.field(name="todo")
    after: Position | None = None
    pages: dict[str, int] = {}
    slot: int = -1

    @property
    def expires(self) -> int:
        """When the export is deleted, in microseconds since 1970 UTC."""
        return self.started + LIFE


JOBS: Final = OwnedJobs("export", "export-slot", Job, most=MAX_EXPORTS, what="exports of yours", absent=_NO_EXPORT)


async def delete(service: Service, id: str, owner: str, now: int) -> None:
    """Delete an export and its pages.  Raises Problem ``not_found`` if it does not exist, or another request deletes it."""
    await _delete_pages(service, id, await JOBS.remove(service.store.key_values, id, owner, now), now)


async def _delete_pages(service: Service, id: str, job: Job, now: int) -> None:
    key_values = service.store.key_values
    for part, pages in job.pages.items():
        for number in range(pages):
            await key_values.pop("export-page", _page_key(id, part, number), now)


async def collect_next_pages(service: Service, request: Request, audit: AuditContext, id: str, job: Job) -> Job:
    """Collect the ids of some more pages and return the advanced export.

    Returns ``job`` unchanged if it is complete or another status request is working on it.  Raises Problem ``not_found`` if it was
    deleted meanwhile: it stays deleted.
    """
    key_values = service.store.key_values
    if not job.remaining or not await key_values.put_if_absent("export-turn", id, b"", request.now + _LOCK_LIFE):
        return job
    try:
        job, stored = await JOBS.find(key_values, id, job.owner, request.now)
        collected = 0
        while job.remaining and collected < _PAGES:
            before, job = job, await _collect_page(service, request, audit, id, job)
            collected += job.pages != before.pages or job.remaining == before.remaining
            await asyncio.sleep(0)
        if await key_values.replace_value("export", id, stored, msgspec.json.encode(job)):
            return job
        return await _overtaken(service, request, id, job)
    finally:
        await key_values.pop("export-turn", id, request.now)


async def _overtaken(service: Service, request: Request, id: str, job: Job) -> Job:
    """The export as another request has advanced it since.  If one has deleted it, the pages of this one go, too."""
    try:
        return (await JOBS.find(service.store.key_values, id, job.owner, request.now))[0]
    except Problem:
        await _delete_pages(service, id, job, request.now)
        raise


async def _collect_page(service: Service, request: Request, audit: AuditContext, id: str, job: Job) -> Job:
    part = job.remaining[0]
    try:
        ids, after = await service.read_with_view(request, audit, partial(_list_ids, job=job, service=service))
    except Problem as problem:
        if problem.kind != "invalid" or job.after is None:
            raise
        # The resource at the stored position is no longer visible: start this part again.
        return msgspec.structs.replace(job, after=None, pages={**job.pages, part: 0})
    number = job.pages.get(part, 0)
    if ids:
        page = msgspec.json.encode(ids)
        await service.store.key_values.put("export-page", _page_key(id, part, number), page, job.expires)
        job = msgspec.structs.replace(job, pages={**job.pages, part: number + 1})
    return msgspec.structs.replace(job, after=after, remaining=job.remaining if after else job.remaining[1:])


async def _list_ids(view: View, job: Job, service: Service) -> tuple[list[str], Position | None]:
    """The ids of the next page of the current part, and the position at which the page after it begins."""
    type, asked = bulk_export_deletions.type_of(job.remaining[0]), job.export_request
    if bulk_export_deletions.is_deletions(job.remaining[0]):
        where = await asked.patients_condition(view, type, service.policy.timezone)
        return await bulk_export_deletions.ids(view, type, where, asked.since_instant(service.base), _PAGE, job.after)
    where = await asked.condition(view, type, service.base, service.policy.timezone)
    find = view.find if type in asked.searches else view.find_readable
    page = await find(type, where, limit=_PAGE, after=job.after)
    return [version.id for version in page.versions], page.next


async def contents(
    service: Service, request: Request, audit: AuditContext, id: str, job: Job, part: str
) -> AsyncIterator[list[VisibleVersion]]:
    """Yield the resources or deletions of one part, a page at a time: those visible now, as of the start of the export.

    Raises Problem ``not_found`` if the export was deleted meanwhile, so that a file never ends early as if it were whole.
    """
    for number in range(job.pages.get(part, 0)):
        text = await service.store.key_values.get("export-page", _page_key(id, part, number), request.now)
        if text is None:
            raise Problem("not_found", _NO_EXPORT)
        ids = msgspec.json.decode(text, type=list[str])
        versions = await service.read_with_view(request, audit, partial(_versions_at, part=part, ids=ids, job=job, base=service.base))
        if versions:
            yield versions


async def _versions_at(view: View, part: str, ids: list[str], job: Job, base: str) -> list[VisibleVersion]:
    """The versions of these resources that were current when the export started, without resources that are hidden or absent now."""
    type, time = bulk_export_deletions.type_of(part), job.started
    if bulk_export_deletions.is_deletions(part):
        return await bulk_export_deletions.current_at(view, type, ids, time, job.export_request.since_instant(base))
    page = await view.find_readable(type, IdIs(frozenset(ids)), limit=len(ids), after=None)
    versions = {version.id: version for version in page.versions if version.updated <= time}
    for id in set(ids) - set(versions):
        past = await bulk_export_deletions.version_at(view, type, id, time)
        if past is not None and past.interaction != "delete":
            versions[id] = past
    return [versions[id] for id in ids if id in versions]


def _page_key(id: str, part: str, number: int) -> str:
    return f"{id}/{part}/{number}"
