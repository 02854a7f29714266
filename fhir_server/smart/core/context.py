"""What every package of ``smart`` needs: :class:`SmartContext`, lifetimes in microseconds, and random secrets."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from fhir_server.clock import Clock
from fhir_server.smart.core.mail import Mail, NoMail
from fhir_server.smart.core.password_rules import PasswordRules
from fhir_server.smart.core.persons import Charts, EffectiveScopes, Encounters, NoCharts, Records, all_scopes, no_encounters
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
REFRESH_LIFE: Final = 92 * DAY  # certification requires three months; every use starts a new period
GRANT_LIFE: Final = 3 * 365 * DAY  # then the person must decide again, even if the tokens were refreshed all the time
TOMBSTONE_LIFE: Final = DAY
REFRESH_GRACE: Final = 10 * SECOND
REQUEST_LIFE: Final = 30 * MINUTE
PARKED_LIFE: Final = 15 * MINUTE  # of an authorization request for which nobody has signed in
LAUNCH_LIFE: Final = 5 * MINUTE
SESSION_IDLE: Final = 10 * MINUTE
SESSION_LIFE: Final = 8 * HOUR
_UTC: Final = ZoneInfo("UTC")


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """The SHA-256 that is stored in place of a secret.  Plain SHA-256 is enough because the secrets are random."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SmartContext:
    """The configuration and services that all handlers of ``smart`` share.

    ``origin``         scheme://host[:port] without a trailing slash; https, or http on a loopback address only
    ``fhir_base``      absolute FHIR base URL without a trailing slash
    ``now``            the clock
    ``records``        lists the records that a person may open at an instant; called at every step, never cached
    ``charts``         searches the patients of a clinician, of whom there are too many to list
    ``organization``   the organization's name on pages
    ``mode``           ``production``, ``demo`` or ``test``
    ``key``            encrypts signing keys and other secrets in the store; empty stores them in plain text (demo, test)
    ``encounters``     lists the visits in a record that a person may choose for an app; called at every step
    ``effective_scopes``  the part of requested scopes that has an effect for a person in a record; called when consent is asked
                       for and again when it is given
    ``network``        fetches clients' key sets
    ``record_security_event``  writes sign-ins, grants, tokens and registrations to the audit log
    ``second_factor``  the roles that need a second factor to sign in
    ``passwords``      the rules for new passwords
    ``zone``           the time zone of dates and times on pages
    ``former_key``     opens what was encrypted before ``key`` replaced it; encrypts nothing
    ``staff_apps``     what becomes of a request to staff by an app that is not approved for them: ``approved`` refuses, ``ask`` asks
    ``mail``           sends e-mail, to the addresses of accounts
    ``require_pushed_requests``, ``require_dpop``  of all clients: authorization requests only pushed (RFC 9126), tokens only bound
                       to a key (RFC 9449)
    ``refresh_grace``  microseconds in which a used refresh token gets the same client the same tokens again; 0: not at all
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
    effective_scopes: EffectiveScopes = all_scopes
    network: Network = field(default_factory=Network)
    record_security_event: EventRecorder = discard_event
    second_factor: frozenset[str] = frozenset()
    passwords: PasswordRules = field(default_factory=PasswordRules)
    zone: ZoneInfo = _UTC
    former_key: str = ""
    refresh_grace: int = REFRESH_GRACE
    staff_apps: str = "approved"
    require_pushed_requests: bool = False
    require_dpop: bool = False
    charts: Charts = field(default_factory=NoCharts)
    mail: Mail = field(default_factory=NoMail)

    async def record(self, event: SecurityEvent) -> None:
        """Write an event that just happened or was just refused to the audit log."""
        await self.record_security_event(event, self.now())

    @property
    def is_demo(self) -> bool:
        """Whether the mode is demo or test: registration needs no token, and http to a loopback address is allowed."""
        return self.mode in ("demo", "test")
