"""What a resource lends to those that refer to it: labels, release date and text, over all of its versions.

What has been lent stays lent.  Deleting a resource, replacing it, creating it again or moving it elsewhere takes no label from the
resources that inherited it.  Only a version with the security label DECLASSIFYLABEL starts anew (docs/policy.md, "What has been
lent stays lent").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fhir_server.consent.visibility_classes import CATEGORIES, HELD, MC, PHYHOLD, UNCLASSIFIED, UNRESOLVED, VisibilityClass

Body = Callable[[], Mapping[str, Any]]
Bodies = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
_DOUBTS: Final = frozenset({UNCLASSIFIED, UNRESOLVED})
_STATES: Final = frozenset({HELD, PHYHOLD})
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
    ``text``        the JSON text of the body, if there is no other one
    """

    key: VisibilityClass
    release_at: int
    parsed: Body
    earlier: Bodies = no_bodies
    former_data: frozenset[str] = frozenset()
    depends_on: tuple[str, ...] = ()
    text: bytes = b""

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


class LendingVersion(NamedTuple):
    """A version's class and release date, and the release date that it states itself (0: none); the rest is inherited."""

    key: VisibilityClass
    release_at: int
    own_release_at: int


def lent_class(versions: Sequence[LendingVersion]) -> tuple[VisibilityClass, int]:
    """(class, release date) that versions, oldest first, lend together.

    The labels are those of any version, and the release date is the latest.  Three things end with the newest version: a state
    (``HELD``, ``PHYHOLD``) that is no longer its own, doubts (``UNCLASSIFIED``, ``UNRESOLVED``) if it has no label at all, and a
    release date that an earlier version states itself if nothing but categories withhold the newest one.
    """
    newest = versions[-1]
    if len(versions) == 1:
        return newest.key, newest.release_at
    labels = frozenset[str]().union(*(version.key.labels for version in versions))
    labels -= _STATES - newest.key.labels
    if not newest.key.labels:
        labels -= _DOUBTS
    if newest.key.labels <= _CONTENT:
        inherited = [version.release_at for version in versions if version.release_at > version.own_release_at]
        return VisibilityClass(newest.key.data, labels), max([newest.release_at, *inherited])
    return VisibilityClass(newest.key.data, labels), max(version.release_at for version in versions)
