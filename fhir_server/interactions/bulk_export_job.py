"""The stored state of a Bulk Data export, and the steps that advance it.

No background task runs.  Each status request collects the ids of some pages of resources, in the View of that request; so
the export survives a restart and always uses the caller's current permissions.  Only ids are stored.  A file request reads
the resources in the View of that request, in the version that was current when the export started.
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
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.interactions.service import Service
from fhir_server.search.filters import IdIs
from fhir_server.search.rows import Position

LIFE: Final = 24 * 3600 * 1_000_000
_LOCK_LIFE: Final = 60 * 1_000_000  # after this time, another status request can continue the work of a process that died
_PAGE: Final = 500
_PAST_VERSIONS: Final = 20  # read at once to find the one that was current when the export started
_PAGES: Final = 40  # pages per status request


class Job(msgspec.Struct, frozen=True):
    """An export.

    ``owner``           see :func:`owner`
    ``request``         the URL of the kick-off request
    ``started``         its time, in microseconds since 1970 UTC
    ``remaining``       the types that are not complete, the current one first
    ``after``           the position in the current type at which to continue
    ``pages``           the number of stored pages of ids, by type
    """

    owner: str
    request: str
    started: int
    export_request: ExportRequest = msgspec.field(name="asked")
    remaining: tuple[str, ...] = msgspec.field(name="todo")
    after: Position | None = None
    pages: dict[str, int] = {}

    @property
    def expires(self) -> int:
        """When the export is deleted, in microseconds since 1970 UTC."""
        return self.started + LIFE


def owner(permissions: Permissions) -> str:
    """A digest of the client, the person and the patient in context: only they can use the export."""
    principal = permissions.principal
    return sha256(msgspec.json.encode((principal.client_id, principal.owner or principal.username, principal.patient))).hexdigest()


async def save(service: Service, id: str, job: Job) -> None:
    """Store an export until it expires."""
    await service.store.key_values.put("export", id, msgspec.json.encode(job), job.expires)


async def find(service: Service, id: str, owner: str, now: int) -> Job:
    """Return the owner's export.  Raises Problem ``not_found`` if there is none, or it belongs to another owner."""
    text = await service.store.key_values.get("export", id, now)
    job = msgspec.json.decode(text, type=Job) if text else None
    if job is None or job.owner != owner:
        raise Problem("not_found", "There is no such export.")
    return job


async def delete(service: Service, id: str, job: Job, now: int) -> None:
    """Delete an export and its pages."""
    key_values = service.store.key_values
    await key_values.pop("export", id, now)
    for type, pages in job.pages.items():
        for number in range(pages):
            await key_values.pop("export-page", _page_key(id, type, number), now)


async def collect_next_pages(service: Service, request: Request, audit: AuditContext, id: str, job: Job) -> Job:
    """Collect the ids of some more pages and return the advanced export.

    Returns ``job`` unchanged if it is complete or another status request is working on it.
    """
    key_values = service.store.key_values
    if not job.remaining or not await key_values.put_if_absent("export-turn", id, b"", request.now + _LOCK_LIFE):
        return job
    try:
        job = await find(service, id, job.owner, request.now)
        limit = sum(job.pages.values()) + _PAGES
        while job.remaining and sum(job.pages.values()) < limit:
            job = await _collect_page(service, request, audit, id, job)
            await asyncio.sleep(0)
        await save(service, id, job)
        return job
    finally:
        await key_values.pop("export-turn", id, request.now)


async def _collect_page(service: Service, request: Request, audit: AuditContext, id: str, job: Job) -> Job:
    type = job.remaining[0]
    try:
        ids, after = await service.read_with_view(request, audit, partial(_list_ids, job=job, service=service))
    except Problem as problem:
        if problem.kind != "invalid" or job.after is None:
            raise
        # The resource at the stored position is no longer visible: start this type again.
        return msgspec.structs.replace(job, after=None, pages={**job.pages, type: 0})
    number = job.pages.get(type, 0)
    if ids:
        page = msgspec.json.encode(ids)
        await service.store.key_values.put("export-page", _page_key(id, type, number), page, job.expires)
        job = msgspec.structs.replace(job, pages={**job.pages, type: number + 1})
    return msgspec.structs.replace(job, after=after, remaining=job.remaining if after else job.remaining[1:])


async def _list_ids(view: View, job: Job, service: Service) -> tuple[list[str], Position | None]:
    """The ids of the next page of the current type, and the position at which the page after it begins."""
    type = job.remaining[0]
    where = await job.export_request.condition(view, type, service.base, service.policy.timezone)
    find = view.find if type in job.export_request.searches else view.find_readable
    page = await find(type, where, limit=_PAGE, after=job.after)
    return [version.id for version in page.versions], page.next


async def contents(
    service: Service, request: Request, audit: AuditContext, id: str, job: Job, type: str
) -> AsyncIterator[list[VisibleVersion]]:
    """Yield the resources of one type, a page at a time: those visible now, as of the start of the export."""
    for number in range(job.pages.get(type, 0)):
        text = await service.store.key_values.get("export-page", _page_key(id, type, number), request.now)
        ids = msgspec.json.decode(text or b"[]", type=list[str])
        versions = await service.read_with_view(request, audit, partial(_versions_at, type=type, ids=ids, time=job.started))
        if versions:
            yield versions


async def _versions_at(view: View, type: str, ids: list[str], time: int) -> list[VisibleVersion]:
    """The versions of these resources that were current at ``time``, without resources that are hidden or absent now."""
    page = await view.find_readable(type, IdIs(frozenset(ids)), limit=len(ids), after=None)
    versions = {version.id: version for version in page.versions if version.updated <= time}
    for id in set(ids) - set(versions):
        past = await _past_version(view, type, id, time)
        if past is not None:
            versions[id] = past
    return [versions[id] for id in ids if id in versions]


async def _past_version(view: View, type: str, id: str, time: int) -> VisibleVersion | None:
    before: int | None = None
    try:
        while True:
            page = await view.history(type, id, _PAST_VERSIONS, before)
            for version in page.versions:
                if version.updated <= time:
                    return version if version.interaction != "delete" else None
            if page.next is None:
                return None
            before = page.next
    except Problem as problem:
        if problem.kind not in ("not_found", "gone"):
            raise  # a temporary failure must not remove a resource from the file
        return None


def _page_key(id: str, type: str, number: int) -> str:
    return f"{id}/{type}/{number}"
