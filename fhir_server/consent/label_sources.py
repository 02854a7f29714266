"""What a resource lends to those that refer to it: labels, release date and text, over all of its versions.

What has been lent stays lent.  Deleting a resource, replacing it, creating it again or moving it elsewhere takes no label from the
resources that inherited it.  Only a version with the security label DECLASSIFYLABEL starts anew (docs/policy.md, "What has been
lent stays lent").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.consent.visibility_classes import CATEGORIES, MC, UNCLASSIFIED, UNRESOLVED, VisibilityClass

Body = Callable[[], Mapping[str, Any]]
Bodies = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
_DOUBTS: Final = frozenset({UNCLASSIFIED, UNRESOLVED})
_CONTENT: Final = CATEGORIES | {MC}


async def no_bodies() -> Sequence[Mapping[str, Any]]:
    """The earlier bodies of a resource without any."""
    return ()


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A resource from which others inherit, also after its deletion.

    ``key``         the data class of its newest version, and the labels that it lends
    ``release_at``  the release date that it lends (microseconds since 1970 UTC, 0: none)
    ``parsed``      parses its newest body
    ``earlier``     parses the bodies before that from which others still inherit, oldest first
    ``former_data`` the data classes of the versions before
    ``depends_on``  the ``Type/id`` of the resources without which it is not visible
    """

    key: VisibilityClass
    release_at: int
    parsed: Body
    earlier: Bodies = no_bodies
    former_data: frozenset[str] = frozenset()
    depends_on: tuple[str, ...] = ()

    @property
    def data_classes(self) -> frozenset[str]:
        """The data classes of all versions."""
        return self.former_data | {self.key.data}

    @property
    def body(self) -> Mapping[str, Any]:
        return self.parsed()

    async def bodies(self) -> list[Mapping[str, Any]]:
        """All bodies from which others inherit, oldest first."""
        return [*await self.earlier(), self.body]


def lent_class(versions: Iterable[tuple[VisibilityClass, int]]) -> tuple[VisibilityClass, int]:
    """(class, release date) that versions, oldest first, lend together.

    The labels are those of any version.  Two things end with the newest version, because it settles them for all who see it: doubts
    (``UNCLASSIFIED``, ``UNRESOLVED``), if it has no label at all, and a release date, if nothing but a category withholds it.
    """
    known = list(versions)
    newest, release = known[-1]
    if len(known) == 1:
        return newest, release
    labels = frozenset[str]().union(*(key.labels for key, _ in known))
    if not newest.labels:
        labels -= _DOUBTS
    if not newest.labels <= _CONTENT:
        release = max(release for _, release in known)
    return VisibilityClass(newest.data, labels), release
