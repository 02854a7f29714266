"""What every part of this room needs: :class:`SmartContext`, the lifetimes, and how secrets are made and kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from fhir_server.clock import Clock
from fhir_server.smart.core.password_rules import PasswordRules
from fhir_server.smart.core.persons import Encounters, Records, no_encounters
from fhir_server.smart.core.security_events import EventRecorder, SecurityEvent, discard_event
from fhir_server.store import Store
from fhir_server.web.public_fetch import Network

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

CODE_LIFE: Final = MINUTE
ACCESS_LIFE: Final = HOUR
BACKEND_LIFE: Final = 5 * MINUTE
REFRESH_LIFE: Final = 92 * DAY  # "three months", counted anew at every use, as certification asks
GRANT_LIFE: Final = 3 * 365 * DAY  # after that, the person is asked again however often a grant was renewed
TOMBSTONE_LIFE: Final = DAY
REQUEST_LIFE: Final = 30 * MINUTE
LAUNCH_LIFE: Final = 5 * MINUTE
SESSION_IDLE: Final = 10 * MINUTE
SESSION_LIFE: Final = 8 * HOUR
_UTC: Final = ZoneInfo("UTC")


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored in place of a secret; all of ours are random, so a plain SHA-256 keeps them."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SmartContext:
    """The room, wired: where things are kept, under which names, and who may open which records.

    ``origin``     scheme://host[:port] without a slash at the end; https, or http on a loopback address only
    ``fhir_base``  absolute FHIR base URL without a slash at the end
    ``records``    which records a person may open at an instant; asked anew at every step
    ``encounters`` which visits in a record a person may hand to an app; asked anew likewise
    ``network``    how other servers are reached (clients' key sets)
    ``key``        encrypts signing keys in the store; empty keeps them plain, for demo and tests
    ``journal``    is told of every sign-in, grant, token and registration
    ``second_factor``  the roles that nobody signs in as with one factor
    ``passwords``  what may be a password
    ``zone``       the time zone of the days and times that people are told
    """

    store: Store
    origin: str
    fhir_base: str
    now: Clock
    records: Records
    organization: str = "Demo Health"
    mode: str = "production"
    key: str = ""
    encounters: Encounters = no_encounters
    network: Network = field(default_factory=Network)
    record_security_event: EventRecorder = discard_event
    second_factor: frozenset[str] = frozenset()
    passwords: PasswordRules = field(default_factory=PasswordRules)
    zone: ZoneInfo = _UTC

    async def record(self, act: SecurityEvent) -> None:
        """Tell the audit journal of an act that has just come about, or was just refused."""
        await self.record_security_event(act, self.now())

    @property
    def is_demo(self) -> bool:
        """Whether this is a demo or a test: apps register themselves, and plain http to this machine is followed."""
        return self.mode in ("demo", "test")
