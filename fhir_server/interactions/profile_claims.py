"""Requires of what is written that it meets its profiles: those it claims and those that the institution requires of its type.

What counts is the resource as the caller sends it, so a verdict says nothing of parts of the stored row that the caller does not see.
A transaction reads nothing but itself.  So what turns out in it is noted (:meth:`ProfileChecks.need`), checked after it, and the
transaction begins again.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from fhir_server import jsontext
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.packages.validator import ProfileValidator
from fhir_server.writing.draft import Draft
from fhir_server.writing.meta import meta_of


class ChecksNeededError(Exception):
    """A transaction has noted checks that have not been made."""


class ProfileChecks:
    """The checks that the transaction of one request needs."""

    def __init__(self, validator: ProfileValidator) -> None:
        self._validator = validator
        self._passed: set[bytes] = set()
        self._waiting: dict[bytes, tuple[str, Any]] = {}

    def begin(self) -> None:
        """Forget what an earlier attempt has noted."""
        self._waiting.clear()

    def need(self, type: str, value: dict[str, Any], text: bytes, claims: tuple[str, ...] = ()) -> None:
        """Note that a resource, with its JSON text, must meet its profiles and ``claims``."""
        meta = value.get("meta", {})
        value = value | {"meta": meta | {"profile": [*meta.get("profile", ()), *claims]}} if claims else value
        if not self._validator.must_check(type, value):
            return
        key = sha256(b"\0".join((text, *(claim.encode() for claim in claims)))).digest()
        if key not in self._passed:
            self._waiting[key] = type, value

    def require_made(self) -> None:
        """Raises ChecksNeededError if checks were noted."""
        if self._waiting:
            raise ChecksNeededError

    async def make(self) -> None:
        """Make the checks.  Raises Problem ``unprocessable`` with one issue for each defect of the first resource that fails."""
        for key, (type, value) in self._waiting.items():
            await self._validator.require(type, value)
            self._passed.add(key)


def need_kept(checks: ProfileChecks, draft: Draft, current: VisibleVersion | None) -> None:
    """Note that the draft must meet the profiles that the version before it claims: an update removes none."""
    if current is None or b'"profile"' not in current.body:
        return
    claims = tuple(jsontext.parse(meta_of(jsontext.members(current.body)).get("profile", b"[]")))
    kept = tuple(claim for claim in claims if claim not in draft.value.get("meta", {}).get("profile", ()))
    if kept:
        checks.need(draft.type, draft.value, jsontext.join_members(draft.parts), kept)


async def checked(draft: Draft, validator: ProfileValidator) -> Draft:
    """The draft, if it meets its profiles.  Raises Problem ``unprocessable`` with one issue for each defect."""
    if validator.must_check(draft.type, draft.value):
        await validator.require(draft.type, draft.value)
    return draft
