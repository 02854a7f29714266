"""The deletions in a Bulk Data export with ``_since``: https://hl7.org/fhir/uv/bulkdata/STU2/export.html#response---complete-status.

They are the deletions that the caller finds in the history of each type.  What was hidden when it was deleted is not among
them, nor what became hidden and still exists: to the caller, only a visible deletion tells a deleted resource from one that never was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fhir_server.access.view import View
from fhir_server.access.visible_changes import HistoryPeriod, entry_key
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions.bundle_json import string
from fhir_server.search.filters import Filter
from fhir_server.search.rows import Position

_PREFIX: Final = "deleted."
_PAST_VERSIONS: Final = 20  # read at once to find the one that was current when the export started
_MILLISECOND: Final = 1000


def part_of(type: str) -> str:
    """The name of the part of an export that has the deletions of a type."""
    return _PREFIX + type


def is_deletions(part: str) -> bool:
    """Whether a part of an export has deletions, and no resources."""
    return part.startswith(_PREFIX)


def type_of(part: str) -> str:
    """The resource type of a part of an export."""
    return part.removeprefix(_PREFIX)


async def ids(view: View, type: str, where: Filter, since: int, limit: int, after: Position | None) -> tuple[list[str], Position | None]:
    """The ids of resources that were deleted since an instant, among ``limit`` changes, and where the next changes begin."""
    page = await view.changes((type,), limit, HistoryPeriod(since), entry_key(after) if after is not None else None, where)
    deleted = dict.fromkeys([version.id for version in page.versions if version.interaction == "delete"])
    return list(deleted), page.next.position() if page.next is not None else None


async def current_at(view: View, type: str, ids: Sequence[str], time: int, since: int) -> list[VisibleVersion]:
    """The deletions of these resources that were their newest version at ``time``, and not before ``since``."""
    versions = [await version_at(view, type, id, time) for id in ids]
    return [
        version
        for version in versions
        if version is not None and version.interaction == "delete" and version.updated // _MILLISECOND * _MILLISECOND >= since
    ]


async def version_at(view: View, type: str, id: str, time: int) -> VisibleVersion | None:
    """The version of a resource that was the newest at ``time``, which may be a deletion; None if it is not visible now."""
    before: int | None = None
    try:
        while True:
            page = await view.history(type, id, _PAST_VERSIONS, before)
            for version in page.versions:
                if version.updated <= time:
                    return version
            if page.next is None:
                return None
            before = page.next
    except Problem as problem:
        if problem.kind not in ("not_found", "gone"):
            raise  # a temporary failure must not remove a resource from the file
        return None


def bundle(deletions: Sequence[VisibleVersion]) -> bytes:
    """A line of a file: a transaction that deletes these resources elsewhere, too."""
    entries = [b'{"request":{"method":"DELETE","url":%s}}' % string(f"{one.type}/{one.id}") for one in deletions]
    return b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}\n' % b",".join(entries)
