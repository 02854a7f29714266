"""Settings: one frozen object, read from environment variables ``FHIR_SERVER_*``.

``docs/settings.md`` is checked against :data:`FIELDS` by a test.  An unknown variable is an error, because a
misspelt privacy setting that is silently ignored is a leak.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from fhir_server.clock import Clock, fixed_clock, system_clock

Mode = Literal["production", "demo", "test"]
PREFIX = "FHIR_SERVER_"
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?")
SECOND_FACTOR: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "staff": ("clinician", "billing", "privacy"),
    "everyone": ("patient", "clinician", "billing", "privacy"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may set; each field is the variable ``FHIR_SERVER_<NAME>``.

    store       URL of the store: ``sqlite:///path`` (relative), ``sqlite:////abs/path``, ``mongodb://…``, ``memory:``
    origin      scheme, host and port under which callers reach the server; also the OpenID issuer
    mode        ``production``, ``demo`` (demo people, clients and keys) or ``test``
    policy      name of a shipped policy (``optum``, ``ssm``, ``strict``) or the path of a policy file
    timezone    IANA time zone in which ages are counted; empty: the policy file's
    clock       a fixed ISO 8601 instant instead of the machine's clock; only in demo and test mode
    name        the organisation's name as people see it on the pages
    ig          folder with the ValueSets of sensitive and ordinary codes; empty: the one in the package
    key         secret (at least 32 characters) that encrypts signing keys in the store and seals page links;
                serving in production needs it
    max_body    largest request body accepted, in bytes
    max_entries largest number of entries in a batch or transaction
    second_factor who needs a second factor to sign in: ``nobody``, ``staff`` or ``everyone``; empty: ``staff`` in production,
                else ``nobody``
    breached_passwords path of a file of SHA-1 hashes of passwords that nobody may choose; empty: none
    """

    store: str = "sqlite:///data/fhir.sqlite"
    origin: str = "http://127.0.0.1:8000"
    mode: Mode = "production"
    policy: str = "optum"
    timezone: str = ""
    clock: str = ""
    name: str = "Demo Health"
    ig: str = ""
    key: str = ""
    max_body: int = 32 * 1024 * 1024
    max_entries: int = 5000
    second_factor: str = ""
    breached_passwords: str = ""

    @property
    def base(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        return f"{self.origin}/fhir"

    @property
    def roles_with_second_factor(self) -> tuple[str, ...]:
        """The roles of accounts that need a second factor."""
        return SECOND_FACTOR[self.second_factor or ("staff" if self.mode == "production" else "nobody")]

    def now(self) -> Clock:
        """The clock these settings ask for."""
        return fixed_clock(self.clock) if self.clock else system_clock()

    def require_key(self) -> None:
        """Refuse to serve in production without a key.  Raises ValueError with a text for the operator."""
        if self.mode == "production" and len(self.key) < 32:
            raise ValueError("FHIR_SERVER_KEY must hold a secret of at least 32 characters in production mode.")

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
        """Read, convert and check.  Raises ValueError with a text for the operator."""
        source = os.environ if environment is None else environment
        known = {field.name: field for field in fields(Settings)}
        given: dict[str, object] = {}
        for variable, text in source.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :].lower()
            if name not in known:
                raise ValueError(f"{variable} is not a setting; see docs/settings.md for the names.")
            given[name] = _number(variable, text) if known[name].type == "int" else text
        return _checked(Settings(**given))  # type: ignore[arg-type]


FIELDS = tuple(field.name for field in fields(Settings))


def _number(variable: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{variable} must be a whole number above 0, not {text!r}.")
    return int(text)


def _checked(settings: Settings) -> Settings:
    if settings.mode not in get_args(Mode):
        raise ValueError(f"FHIR_SERVER_MODE must be one of {', '.join(get_args(Mode))}, not {settings.mode!r}.")
    if settings.second_factor and settings.second_factor not in SECOND_FACTOR:
        raise ValueError(f"FHIR_SERVER_SECOND_FACTOR must be one of {', '.join(SECOND_FACTOR)}, not {settings.second_factor!r}.")
    if settings.clock and settings.mode == "production":
        raise ValueError("FHIR_SERVER_CLOCK is refused in production mode: ages must follow the real clock.")
    if settings.clock:
        _require_instant(settings.clock)
    if not settings.origin.startswith(("http://", "https://")) or settings.origin.endswith("/"):
        raise ValueError("FHIR_SERVER_ORIGIN must be scheme://host[:port] without a trailing slash.")
    if settings.mode == "production" and settings.origin.startswith("http:") and not _LOOPBACK.fullmatch(settings.origin):
        raise ValueError("FHIR_SERVER_ORIGIN must be https in production: cookies and tokens would travel in the clear.")
    return settings


def _require_instant(text: str) -> None:
    try:
        fixed_clock(text)
    except ValueError as error:
        raise ValueError(f"FHIR_SERVER_CLOCK: {error}") from None
