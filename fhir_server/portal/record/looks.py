"""What AuditEvents say in plain words: when, who, as what, with which app, what for.  They are those that the API gave to the person."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server.display.names import Json, name_of
from fhir_server.display.texts import objects, plain
from fhir_server.web.dates import format_day

_CLIENT: Final = "Client "
_PAGES: Final = "portal"
_OTHER: Final = "Another person"
# by purposeOfEvent (v3-ActReason): as what somebody acted, and what for
_PURPOSES: Final[Mapping[str, tuple[str, str]]] = {
    "PATRQT": ("Patient", "Own request"),
    "FAMRQT": ("Family or friend", "Request of family or a friend"),
    "PWATRNY": ("Legal representative", "Request of a representative"),
    "TREAT": ("Clinic", "Treatment"),
    "BTG": ("Clinic", "Emergency: opened in spite of a restriction"),
    "HPAYMT": ("Billing office", "Payment"),
    "HCOMPL": ("Privacy office", "Review of privacy"),
}
# who acts without a purpose, by the type of the resource; "": a client alone
_KINDS: Final = {
    "": "App or system", "Patient": "Patient", "RelatedPerson": "Family or friend", "Practitioner": "Clinic", "PractitionerRole": "Clinic",
    "Organization": "Other organization",
}  # fmt: skip
_REST: Final = "rest"
_ACTIONS: Final = {"C": "Added to the record", "U": "Changed the record", "D": "Removed from the record"}
_OPENED: Final = "Opened the record"
_ACCESS: Final = "Changed access to the record"
_ACTS: Final = {
    "allow-app": "Allowed an app", "end-app": "Ended the access of an app", "open-app": "Opened an app", "token": "An app was given access",
    "revoke": "An app gave up its access", "share-record": "Shared the record", "end-sharing": "Ended a sharing",
    "new-code": "Made an activation code", "use-code": "Used an activation code", "export": "Exported the record",
}  # fmt: skip
# what a person asked for, who sees that of own acts alone
_OPERATIONS: Final = {
    "$everything": "Downloaded the whole record", "$summary": "Downloaded the patient summary", "$export": "Exported the record",
    "$health-cards-issue": "Had proof of vaccination made",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """One act.  ``at``: when, in the institution's time zone; ``who`` and ``role``: the person and as what; ``app``: with which app,
    "" for the institution's pages; ``refused``: whether it was refused or failed.
    """

    at: datetime
    who: str
    role: str
    app: str
    act: str
    purpose: str
    refused: bool

    @property
    def time(self) -> str:
        return f"{self.at:%H:%M}"


@dataclass(frozen=True, slots=True)
class Group:
    """The acts of one kind by one person on one day.  ``first`` and ``last``: the times of day of the first and the last of them."""

    look: Look
    count: int
    first: str
    last: str


def looks(events: Iterable[Json], included: Mapping[str, Json], zone: ZoneInfo) -> Iterator[Look]:
    """The acts that AuditEvents record.  ``included``: the resources of the same answer by ``Type/id``."""
    for event in events:
        agents = objects(event.get("agent"))
        agent = next((one for one in agents if one.get("requestor")), agents[0])
        target = plain(agent.get("who", {}).get("reference"))
        role, purpose = _PURPOSES.get(_code(event.get("purposeOfEvent")), (_KINDS.get(_type(agent), _OTHER), ""))
        at = datetime.fromisoformat(plain(event["recorded"])).astimezone(zone)
        name = plain(agent.get("name")) or name_of(included.get(target, {})) or _displayed(agent)
        yield Look(at, name, role, _app(agents), _act(event), purpose, plain(event.get("outcome")) not in ("", "0"))


def by_day(found: Iterable[Look]) -> Iterator[tuple[str, list[Group]]]:
    """The acts of each day, in words, as groups: the newest first."""
    for day, of_day in groupby(found, key=lambda look: look.at.date()):
        alike: dict[tuple[object, ...], list[Look]] = {}
        for look in of_day:
            alike.setdefault((look.who, look.role, look.app, look.act, look.purpose, look.refused), []).append(look)
        yield format_day(day), [Group(each[0], len(each), each[-1].time, each[0].time) for each in alike.values()]


def _type(agent: Mapping[str, Any]) -> str:
    who = agent.get("who", {})
    named = plain(who.get("reference")).partition("/")[0] or plain(who.get("display"))
    return "" if named.startswith(_CLIENT) else named


def _displayed(agent: Mapping[str, Any]) -> str:
    """Who acted, if the person does not see the resource: an app, or only what kind of person."""
    shown = plain(agent.get("who", {}).get("display"))
    if shown.startswith(_CLIENT):
        return shown.removeprefix(_CLIENT)
    return f"{_KINDS.get(_type(agent), _OTHER)} (not named)"


def _app(agents: list[Json]) -> str:
    """The app with which a person acted."""
    clients = [plain(agent.get("who", {}).get("display")) for agent in agents if not agent.get("requestor")]
    named = next((client.removeprefix(_CLIENT) for client in clients if client.startswith(_CLIENT)), "")
    return "" if named == _PAGES else named


def _act(event: Json) -> str:
    if event.get("type", {}).get("code") != _REST:
        return next((_ACTS[code] for code in (plain(one.get("code")) for one in objects(event.get("subtype"))) if code in _ACTS), _ACCESS)
    queries = [b64decode(plain(entity["query"])).decode() for entity in objects(event.get("entity")) if "query" in entity]
    steps = [step for query in queries for step in query.partition("?")[0].split("/")]
    asked = next((_OPERATIONS[step] for step in steps if step in _OPERATIONS), "")
    return asked or _ACTIONS.get(plain(event.get("action")), _OPENED)


def _code(purposes: object) -> str:
    """The first code of a list of CodeableConcepts; "" if there is none."""
    codings = [coding for purpose in objects(purposes) for coding in objects(purpose.get("coding"))]
    return next(filter(None, (plain(coding.get("code")) for coding in codings)), "")
