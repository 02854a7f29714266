"""Histories as earlier schemas of the stores kept them: each version had the digests of all versions before it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fhir_server.store.version_history import VersionDigest, VersionHistory
from fhir_server.store.version_summary import following


class FormerDigest(msgspec.Struct, frozen=True, array_like=True):
    """The digest of one version.  The oldest ones end with ``digests``; ``pairs`` was never counted by."""

    version: int
    updated: int
    class_id: int
    release_at: int
    digests: tuple[tuple[int, str], ...]
    pairs: msgspec.Raw = msgspec.Raw(b"\x90")
    guarded_parts: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = ()
    declassifies: bool = False
    own_release_at: int = 0


def converted(digests: Sequence[FormerDigest]) -> dict[int, VersionHistory]:
    """The history of each version, by number, from the digests of all of them, oldest first."""
    histories: dict[int, VersionHistory] = {}
    last: VersionHistory | None = None
    for former in digests:
        digest = VersionDigest(
            former.version, former.updated, former.class_id, former.release_at, former.digests, former.guarded_parts,
            former.declassifies, former.own_release_at,
        )  # fmt: skip
        last = histories[former.version] = following(last, digest)
    return histories
