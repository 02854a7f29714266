"""The AuditEvents of the audit log, as one caller may see and search them.

The log is no part of the record: only reads and searches of AuditEvent come here, through the caller's View.  A condition is evaluated
by :mod:`~fhir_server.search.match` on the index entries of what the caller sees of a line, so nothing hidden can be searched for.
An id is the encrypted number of a line: numbers would tell how much others do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fhir_server.access.audit_projection import Actor, read_line, targets, visible_event, whole_event
from fhir_server.access.permissions import Permissions
from fhir_server.access.versions import last_updated_entry
from fhir_server.access.view import View, not_found
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.consent import decision
from fhir_server.consent.policy import ActorKind
from fhir_server.consent.visibility_classes import VisibilityClass
from fhir_server.search import index, match
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Filter, Has, RefersTo
from fhir_server.search.hidden_references import require_answerable
from fhir_server.search.rows import SearchableRow, SortKey

TYPE: Final = "AuditEvent"
START: Final = 2**62  # a number above those of all lines
_CHUNK: Final = 200
_MOST: Final = 5000  # lines that one page examines for a caller who sees all of them
_AUDIT: Final = VisibilityClass("audit", frozenset())
_MILLISECOND: Final = 1000


class FoundEvent(NamedTuple):
    """An AuditEvent that the caller sees: the number of its line, the resource, and what conditions are evaluated on."""

    number: int
    version: VisibleVersion
    row: SearchableRow


class FoundPage(NamedTuple):
    """AuditEvents, newest first, and the number before which the search goes on (None: these were the last)."""

    events: list[FoundEvent]
    before: int | None


@dataclass(frozen=True, slots=True)
class _Audience:
    """Which lines a caller sees: all, or those about a ``patient``, or of these only the caller's own acts."""

    actor: Actor
    patient: str | None
    own: bool

    def key(self, where: Filter) -> str | None:
        """The key of the lines to read; None: all lines."""
        if self.patient is None:
            return _patient_of(where)
        return f"user/{self.actor.username}/Patient/{self.patient}" if self.own else f"Patient/{self.patient}"


def _audience(permissions: Permissions) -> _Audience | None:
    """Which lines these permissions cover; None: none.

    The privacy office sees all, a person those about the record in context, or of these the own acts, as the policy says.  A system
    sees none, whatever its clearance.
    """
    actor, username = permissions.actor, permissions.principal.username
    if actor is None or not username or actor.kind == ActorKind.BACKEND or not decision.permits(permissions.policy, actor, _AUDIT):
        return None
    asking = Actor(username, permissions.principal.named_at)
    own = decision.own_conditions(permissions.policy, actor, "audit") is not None
    if permissions.patients is None:
        return _Audience(asking, None, False) if actor.kind == ActorKind.PRIVACY_OFFICE and not own else None
    return _Audience(asking, next(iter(permissions.patients)), own) if len(permissions.patients) == 1 else None


class AuditTrail:
    """Reads the audit log for callers.  ``key`` (32 bytes) encrypts the numbers of lines; ``base`` is the FHIR base URL."""

    def __init__(self, key: bytes, base: str) -> None:
        self._cipher = AESSIV(key)
        self._base = base

    def covers(self, permissions: Permissions) -> bool:
        """Whether the caller may see any line."""
        return _audience(permissions) is not None

    async def read(self, view: View, id: str) -> VisibleVersion:
        """The AuditEvent with this id.  Raises Problem ``not_found`` or ``forbidden``."""
        view.permissions.require(TYPE, "r")
        number = self._number(id)
        audience = _audience(view.permissions)
        if number is not None and audience is not None:
            lines = await view.audit_lines_unfiltered(audience.key(EVERYTHING), number + 1, 1)
            visibility = view.permissions.audit_visibility("r", view.now)
            for found in await self._visible(view, audience, [line for line in lines if line[0] == number]):
                if match.is_visible(visibility, found.row):
                    return self.show(view, [found])[0]
        raise not_found(TYPE, id)

    async def find(self, view: View, where: Filter, *, sort: tuple[SortKey, ...] = (), before: int = START, limit: int) -> FoundPage:
        """At most ``limit`` AuditEvents that match, of lines before this number, newest first, whatever ``sort`` is.

        A page may have fewer although more follow, but only for a caller who sees all lines: it ends after 5,000.  Raises Problem
        ``forbidden`` without a search scope, and ``invalid`` if the caller may not ask ``where`` or ``sort``.
        """
        view.permissions.require(TYPE, "s")
        where = await view.with_codes(where)
        require_answerable(TYPE, where, sort)
        where = await view.without_steps(TYPE, where)
        audience = _audience(view.permissions)
        if audience is None:
            return FoundPage([], None)
        visibility = view.permissions.audit_visibility("s", view.now)
        events: list[FoundEvent] = []
        key, examined, start = audience.key(where), 0, before
        while lines := await view.audit_lines_unfiltered(key, before, _CHUNK):
            for found in await self._visible(view, audience, lines):
                if match.matches_visible(visibility, found.row, where):
                    if len(events) == limit:
                        return FoundPage(events, events[-1].number if events else start)
                    events.append(found)
            before = lines[-1][0]
            examined += len(lines)
            if audience.patient is None and examined >= _MOST:
                return FoundPage(events, before)
        return FoundPage(events, None)

    async def count(self, view: View, where: Filter) -> int:
        """The number of AuditEvents that match."""
        count, before = 0, START
        where = await view.without_steps(TYPE, await view.with_codes(where))
        while True:
            page = await self.find(view, where, before=before, limit=_MOST)
            count += len(page.events)
            if page.before is None:
                return count
            before = page.before

    def show(self, view: View, found: list[FoundEvent]) -> list[VisibleVersion]:
        """The resources, which are recorded as shown."""
        view.shown += [(one.row.patients, TYPE, one.version.id) for one in found]
        return [one.version for one in found]

    async def _visible(
        self, view: View, audience: _Audience, numbered: list[tuple[int, bytes]] | tuple[tuple[int, bytes], ...]
    ) -> list[FoundEvent]:
        """What the caller sees of these lines."""
        lines = [(number, line) for number, text in numbered if (line := read_line(text)) is not None]
        if audience.patient is None:
            return [self._event(number, whole_event(line)) for number, line in lines]
        patient, actor = audience.patient, audience.actor
        if audience.own:
            lines = [(number, line) for number, line in lines if line.is_of(actor)]
        visible = await view.visible_targets({target for _, line in lines for target in targets(line, patient, actor) if target})
        events = ((number, visible_event(line, patient, actor, visible)) for number, line in lines)
        return [self._event(number, event) for number, event in events if event is not None]

    def _event(self, number: int, event: dict[str, Any]) -> FoundEvent:
        id = self._id(number)
        updated = int(datetime.fromisoformat(event["recorded"]).timestamp() * 1000 + 0.5) * _MILLISECOND
        meta = {"versionId": "1", "lastUpdated": event["recorded"]}
        resource = {"resourceType": TYPE, "id": id, "meta": meta} | {name: value for name, value in event.items() if name != "resourceType"}
        entries = (*index.entries_with_words(TYPE, resource, self._base), last_updated_entry(updated, 0))
        row = SearchableRow(TYPE, id, _patients(event), 0, 0, entries, (0, number))
        return FoundEvent(number, VisibleVersion(TYPE, id, 1, updated, msgspec.json.encode(resource)), row)

    def _id(self, number: int) -> str:
        return self._cipher.encrypt(number.to_bytes(8, "big"), [b"line of the audit log"]).hex()

    def _number(self, id: str) -> int | None:
        try:
            return int.from_bytes(self._cipher.decrypt(bytes.fromhex(id), [b"line of the audit log"]), "big")
        except (ValueError, InvalidTag):
            return None


def _patients(event: dict[str, Any]) -> tuple[str, ...]:
    """The ids of the patients that an event names."""
    named = [agent.get("who", {}) for agent in event["agent"]] + [entity.get("what", {}) for entity in event.get("entity", ())]
    references = dict.fromkeys(str(one.get("reference", "")) for one in named)
    return tuple(name.removeprefix("Patient/") for name in references if name.startswith("Patient/"))


def _patient_of(where: Filter) -> str | None:
    """The ``Patient/id`` that every row must refer to that meets the condition, if there is one."""
    match where:
        case Has(_, RefersTo(named)) if len(named) == 1:
            target = next(iter(named))
            return target if target.startswith("Patient/") else None
        case AllOf(parts):
            return next((found for part in parts if (found := _patient_of(part))), None)
        case AnyOf(parts):
            alternatives = {_patient_of(part) for part in parts}
            return alternatives.pop() if len(alternatives) == 1 else None
    return None
