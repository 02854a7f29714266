"""What a caller may see of a line of the audit log: the line's AuditEvent, without what is hidden from this caller.

- The privacy office sees every event as it is.
- Who sees the audit events of a record (an adult patient) sees what others did with it, as far as their answers showed a row that the
  caller sees too: who, when and why, but not what was asked, how many rows, or from where.
- A person's own acts are shown as they were, without references to rows that are hidden now.  An act about a hidden row alone is
  not shown, like an act about a row that never existed.

Nothing here depends on a hidden row, so an answer is the same as if it had never been written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from fhir_server.resources.references import exact_target

Json = Mapping[str, Any]
_KEPT: Final = ("resourceType", "type", "action", "recorded", "outcome", "purposeOfEvent", "source")
_CLIENT: Final = "Client "
REQUEST_ID: Final = {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "code": "XrequestId"}
"""The type of the entity that has the request's id."""
_PATIENT: Final = {"system": "http://terminology.hl7.org/CodeSystem/object-role", "code": "1"}


class Actor(NamedTuple):
    """The account that asks.  ``named_at``: when it took its user name from another account (microseconds); 0 if it did not."""

    username: str
    named_at: int = 0


class AuditLine(msgspec.Struct, frozen=True):
    """A line of the audit log, as far as it is shown.  ``shown``: of each patient, the rows that the answer showed."""

    event: dict[str, Any]
    shown: dict[str, list[str]] = {}

    @property
    def username(self) -> str:
        """The account that acted, or the client without one."""
        return str(self.event["agent"][0].get("altId", ""))

    def is_of(self, actor: Actor) -> bool:
        """Whether this account acted.  Acts of a former account of the same user name are another person's."""
        return self.username == actor.username and (not actor.named_at or _recorded(self.event) > actor.named_at)


_lines = msgspec.json.Decoder(AuditLine)


def read_line(text: bytes) -> AuditLine | None:
    """The parsed line, also of an earlier version of the program; None if it has no AuditEvent."""
    try:
        line = _lines.decode(text)
        return line if line.event["agent"] and line.event["type"] and line.event["recorded"] else None
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return None


def whole_event(line: AuditLine) -> dict[str, Any]:
    """The AuditEvent of a line as it is, without what is no reference: earlier versions of the program recorded any path as one."""
    entities = [
        {name: value for name, value in entity.items() if name != "what" or _is_request_id(entity) or exact_target(_target(entity, "what"))}
        for entity in line.event.get("entity", ())
    ]
    entities = [entity for entity in entities if entity]
    event = {name: value for name, value in line.event.items() if name != "entity"}
    return event | ({"entity": entities} if entities else {})


def _recorded(event: Json) -> int:
    """The instant of an event, in microseconds since 1970 UTC."""
    return round(datetime.fromisoformat(event["recorded"]).timestamp() * 1000) * 1000


def targets(line: AuditLine, patient: str, actor: Actor) -> Iterable[str]:
    """The ``Type/id`` on whose visibility it depends what this user sees of a line about the patient."""
    if not line.is_of(actor):
        yield from line.shown.get(patient, ())
        yield from (_target(agent, "who") for agent in line.event["agent"])
    yield from (_target(entity, "what") for entity in line.event.get("entity", ()))


def visible_event(line: AuditLine, patient: str, actor: Actor, visible: Collection[str]) -> dict[str, Any] | None:
    """What this user sees of a line about the patient; ``visible``: those of its :func:`targets` that are.  None: nothing."""
    return _own(line, patient, visible) if line.is_of(actor) else _of_others(line, patient, visible)


def _own(line: AuditLine, patient: str, visible: Collection[str]) -> dict[str, Any] | None:
    record = f"Patient/{patient}"
    entities = line.event.get("entity", ())
    asked = [entity for entity in entities if not _is_patient_shown(entity) and not _is_request_id(entity)]
    kept = [entity for entity in asked if _target(entity, "what") in ("", record) or _target(entity, "what") in visible]
    if asked and not kept:
        return None
    agents = [agent for agent in line.event["agent"] if _is_of_record(agent, record)]
    kept += [{"what": {"reference": record}, "role": _PATIENT}, *filter(_is_request_id, entities)]
    return {**line.event, "agent": agents, "entity": kept}


def _of_others(line: AuditLine, patient: str, visible: Collection[str]) -> dict[str, Any] | None:
    record = f"Patient/{patient}"
    entities = line.event.get("entity", ())
    about = [_target(entity, "what") for entity in entities if _target(entity, "what") not in ("", record)]
    if line.event["type"].get("code") == "rest":
        if not any(row in visible for row in line.shown.get(patient, ())):
            return None
    elif record not in [_target(entity, "what") for entity in entities] or not all(name in visible for name in about):
        return None
    event: dict[str, Any] = {name: line.event[name] for name in _KEPT if name in line.event}
    if line.event["type"].get("code") != "rest" and "subtype" in line.event:
        event["subtype"] = line.event["subtype"]
    agents = [_of_other(agent, record, visible) for agent in line.event["agent"] if _is_of_record(agent, record)]
    return {**event, "agent": agents, "entity": [{"what": {"reference": record}, "role": _PATIENT}]}


def _of_other(agent: Json, record: str, visible: Collection[str]) -> dict[str, Any]:
    """Another agent, without login name, address and policy; the person only if the caller sees that person's resource."""
    kept = {name: agent[name] for name in ("type", "requestor") if name in agent}
    target, display = _target(agent, "who"), str(agent.get("who", {}).get("display", ""))
    if target == record or target in visible or (not target and display.startswith(_CLIENT)):
        return {**kept, "who": agent["who"]}
    return {**kept, "who": {"display": target.partition("/")[0] or "Person"}}


def _is_of_record(agent: Json, record: str) -> bool:
    """Whether an agent is not just the patient of another record."""
    return bool(agent.get("requestor")) or not _target(agent, "who").startswith("Patient/") or _target(agent, "who") == record


def _is_patient_shown(entity: Json) -> bool:
    return bool(entity.get("role", {}).get("code") == "1")


def _is_request_id(entity: Json) -> bool:
    return bool(entity.get("type") == REQUEST_ID)


def _target(element: Json, member: str) -> str:
    return str(element.get(member, {}).get("reference", ""))
