"""Settings: one frozen object, read from environment variables ``FHIR_SERVER_*``.

A test compares ``docs/settings.md`` with :data:`FIELDS`.  An unknown variable is an error: a misspelled privacy setting
must not be ignored silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fhir_server.clock import Clock, fixed_clock, system_clock

Mode = Literal["production", "demo", "test"]
OperationLevel = Literal["normal", "read-only", "maintenance"]
PREFIX = "FHIR_SERVER_"
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", re.ASCII)
SECOND_FACTOR: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "staff": ("clinician", "billing", "privacy"),
    "everyone": ("patient", "clinician", "billing", "privacy"),
}
_MAY_BE_ZERO = frozenset({"refresh_grace_seconds"})
_CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
    "pushed_requests": ("allowed", "required"),
    "dpop": ("allowed", "required"),
    "search_handling": ("strict", "lenient"),
    "unknown_profiles": ("accept", "refuse"),
}
_MAX_REFRESH_GRACE = 60  # a longer grace would give a thief of a refresh token more time than a retry needs
_RENAMED = {
    "NAME": "ORGANIZATION_NAME",
    "KEY": "SECRET_KEY",
    "IG": "IG_PATH",
    "MAX_BODY": "MAX_BODY_BYTES",
    "MAX_ENTRIES": "MAX_BUNDLE_ENTRIES",
    "BREACHED_PASSWORDS": "BREACHED_PASSWORDS_FILE",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an operator.  Each field is the variable ``FHIR_SERVER_<NAME>``.

    store       URL of the store: ``sqlite:///path`` (relative), ``sqlite:////abs/path``, ``mongodb://…``, ``memory:``
    origin      scheme, host and port of the server as callers see it; also the OpenID issuer
    mode        ``production``, ``demo`` (demo accounts, clients and keys) or ``test``
    policy      name of an included policy (``optum``, ``ssm``, ``strict``) or the path of a policy file
    timezone    IANA time zone for calculating ages; empty: the policy file's
    clock       a fixed ISO 8601 instant instead of the machine's clock; only in demo and test mode
    organization_name   the organization's name on pages
    ig_path     folder with the ValueSets of sensitive and ordinary codes; empty: the package's ``ig/``
    codes_path  folder with the institution's own code lists, written by ``fhir-server codes import``; empty: none
    secret_key  secret (at least 32 characters) that encrypts signing keys in the store and page links;
                required to serve in production
    former_secret_key   the secret key before the present one: opens what it encrypted, encrypts nothing; empty: none
    max_body_bytes      maximum size of the body of a batch or transaction, in bytes
    max_resource_bytes  maximum size of any other body, in bytes: one resource
    max_connections     maximum number of connections to one server process
    max_websockets      maximum number of websockets of subscribers to one server process
    max_head_seconds    maximum seconds from the start of a request or connection to the end of the headers
    max_body_seconds    maximum seconds for a whole body
    max_quiet_seconds   maximum seconds without another part of a body, or in which a client takes nothing of an answer
    max_head_bytes      maximum size of the request line and the headers, in bytes
    max_client_requests     maximum number of requests of one client or person that are served at a time
    max_request_seconds     maximum seconds of work for one request, all entries of a Bundle together
    max_request_resources   maximum number of resources that one request reads for its answer
    max_response_bytes      maximum size of these resources, in bytes
    max_working_bytes       maximum bytes of large bodies and answers that one server process works on at a time
    max_bundle_entries  maximum number of entries in a batch or transaction
    search_timezone     IANA time zone of dates without one, in resources and in searches; from the environment, by default that of ages
    search_handling     a parameter that the server does not know, in a request that does not say so by ``Prefer: handling=``:
                ``strict`` refuses it, ``lenient`` ignores it and says so
    required_profiles   profiles that each resource of a type must meet: ``Type=URL``, separated by blanks; empty: none
    unknown_profiles    a resource that claims a profile that no package here has: ``accept`` or ``refuse``
    max_conditional_deletes maximum number of resources that one conditional delete deletes; more matches are refused
    second_factor       who needs a second factor to sign in: ``nobody``, ``staff`` or ``everyone``; empty: ``staff`` in
                production, else ``nobody``
    staff_apps          an app that is not approved for staff: ``approved`` refuses it, ``ask`` lets the member of staff decide
    refresh_grace_seconds   seconds in which a used refresh token gets the same client the same tokens again; 0: not at all
    pushed_requests ``required``: every app must push its authorization requests (RFC 9126); ``allowed``: those that register so
    dpop        ``required``: every token is bound to a key (RFC 9449); ``allowed``: those of apps that send a proof
    breached_passwords_file     path of a file of SHA-1 hashes of passwords that are refused; empty: none
    smtp_url    the mail server: ``smtp://user:password@host:port`` (STARTTLS) or ``smtps://…`` (TLS); empty: no e-mail is sent
    mail_from   the e-mail address from which the server sends
    mail_folder folder into which each message is written as a file instead of being sent, for a demo; empty: none
    audit       ``durable`` (no answer before its audit line is durable) or ``batched``
    audit_anchor_file   path of a file to which heads of the audit log's chain are appended; empty: none
    audit_minimum_days  lines of the audit log that are younger are purged only if the operator confirms that explicitly
    audit_days  ``fhir-server purge`` removes lines of the audit log that are older; 0: none
    history_days    ``fhir-server purge`` removes earlier versions of resources that are older; 0: none
    log_level   ``debug``, ``info`` (a line for each request), ``warning`` or ``error``
    log_format  ``text`` or ``json``
    log_file    path of the log; empty: standard error
    metrics_token       bearer token that opens ``/metrics``; empty, and no address: there is no ``/metrics``
    metrics_address     ``host:port`` at which ``/metrics`` is served instead of at the server's own port; empty: there
    operation   ``normal``, ``read-only`` or ``maintenance``; the command ``fhir-server operation`` can ask for a stricter one
    drain_seconds       seconds after SIGTERM in which ``/readyz`` answers 503 and requests are still served
    """

    store: str = "sqlite:///data/fhir.sqlite"
    origin: str = "http://127.0.0.1:8000"
    mode: Mode = "production"
    policy: str = "optum"
    timezone: str = ""
    clock: str = ""
    organization_name: str = "Demo Health"
    ig_path: str = ""
    codes_path: str = ""
    secret_key: str = ""
    former_secret_key: str = ""
    max_body_bytes: int = 32 * 1024 * 1024
    max_resource_bytes: int = 8 * 1024 * 1024
    max_bundle_entries: int = 5000
    max_conditional_deletes: int = 1
    max_connections: int = 1000
    max_websockets: int = 200
    max_head_seconds: int = 20
    max_body_seconds: int = 300
    max_quiet_seconds: int = 30
    max_head_bytes: int = 64 * 1024
    max_client_requests: int = 16
    max_request_seconds: int = 10
    max_request_resources: int = 50_000
    max_response_bytes: int = 64 * 1024 * 1024
    search_handling: Literal["strict", "lenient"] = "strict"
    required_profiles: str = ""
    unknown_profiles: Literal["accept", "refuse"] = "accept"
    search_timezone: str = "UTC"
    max_working_bytes: int = 192 * 1024 * 1024
    second_factor: str = ""
    staff_apps: str = "approved"
    refresh_grace_seconds: int = 10
    pushed_requests: Literal["allowed", "required"] = "allowed"
    dpop: Literal["allowed", "required"] = "allowed"
    breached_passwords_file: str = ""
    smtp_url: str = ""
    mail_from: str = ""
    mail_folder: str = ""
    audit: Literal["durable", "batched"] = "durable"
    audit_anchor_file: str = ""
    audit_minimum_days: int = 2192
    audit_days: int = 0
    history_days: int = 0
    log_level: str = "warning"
    log_format: str = "text"
    log_file: str = ""
    metrics_token: str = ""
    metrics_address: str = ""
    operation: OperationLevel = "normal"
    drain_seconds: int = 0

    @property
    def base(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        return f"{self.origin}/fhir"

    @property
    def roles_with_second_factor(self) -> tuple[str, ...]:
        """The roles of accounts that need a second factor."""
        return SECOND_FACTOR[self.second_factor or ("staff" if self.mode == "production" else "nobody")]

    @property
    def metrics_endpoint(self) -> tuple[str, int] | None:
        """Host and port of ``metrics_address``; None if it is empty.  Raises ValueError if it is malformed."""
        if not self.metrics_address:
            return None
        found = _HOST_AND_PORT.fullmatch(self.metrics_address)
        if not found or not 0 < int(found[3]) < 65536:
            raise ValueError("FHIR_SERVER_METRICS_ADDRESS must be host:port, such as 127.0.0.1:9100 or [::1]:9100.")
        return found[1] or found[2], int(found[3])

    def make_clock(self) -> Clock:
        """The machine's clock, or a fixed one if ``clock`` is set."""
        return fixed_clock(self.clock) if self.clock else system_clock()

    def require_key(self) -> None:
        """Raises ValueError, with a message for the operator, in production mode without a secret key of 32 characters."""
        if self.mode == "production" and len(self.secret_key) < 32:
            raise ValueError("FHIR_SERVER_SECRET_KEY must be a secret of at least 32 characters in production mode.")

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables.  Raises ValueError, with a message for the operator, for an invalid one.

        A setting of ``SECRETS`` may be in a file that the variable with ``_FILE`` at its end names.
        """
        source = os.environ if environment is None else environment
        types = {field.name: field.type for field in fields(Settings)}
        values: dict[str, object] = {}
        for variable, text in source.items():
            if not variable.startswith(PREFIX):
                continue
            renamed = _RENAMED.get(variable[len(PREFIX) :])
            if renamed:
                raise ValueError(f"{variable} was renamed to {PREFIX}{renamed}.")
            name = variable[len(PREFIX) :].lower()
            if name.removesuffix("_file") in SECRETS and name not in types:
                name = name.removesuffix("_file")
                if f"{PREFIX}{name.upper()}" in source:
                    raise ValueError(f"{PREFIX}{name.upper()} and {variable} are both set; set one of them.")
                text = _read_secret(variable, text)
            if name not in types:
                raise ValueError(f"{variable} is not a setting. The settings are listed in docs/settings.md.")
            values[name] = _number(variable, text, 0 if name in _MAY_BE_ZERO else 1) if types[name] == "int" else text
        values.setdefault("search_timezone", values.get("timezone") or "UTC")
        return _check(Settings(**values))  # type: ignore[arg-type]


FIELDS = tuple(field.name for field in fields(Settings))
SECRETS = ("store", "secret_key", "former_secret_key", "metrics_token", "smtp_url")  # may be read from files; a URL may hold a password


def _read_secret(variable: str, path: str) -> str:
    """The text of the file, without the line break at its end."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ValueError(f"{variable}: the file {path} cannot be read ({reason}).") from None
    if not text.strip():
        raise ValueError(f"{variable}: the file {path} is empty.")
    return text.removesuffix("\n").removesuffix("\r")


def _number(variable: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{variable} must be {'a positive integer' if least else 'an integer from 0 on'}, not {text!r}.")
    return int(text)


def _check(settings: Settings) -> Settings:
    if settings.mode not in get_args(Mode):
        raise ValueError(f"FHIR_SERVER_MODE must be one of {', '.join(get_args(Mode))}, not {settings.mode!r}.")
    if settings.operation not in get_args(OperationLevel):
        raise ValueError(f"FHIR_SERVER_OPERATION must be one of {', '.join(get_args(OperationLevel))}, not {settings.operation!r}.")
    if settings.second_factor and settings.second_factor not in SECOND_FACTOR:
        raise ValueError(f"FHIR_SERVER_SECOND_FACTOR must be one of {', '.join(SECOND_FACTOR)}, not {settings.second_factor!r}.")
    if settings.staff_apps not in ("approved", "ask"):
        raise ValueError(f"FHIR_SERVER_STAFF_APPS must be approved or ask, not {settings.staff_apps!r}.")
    if settings.audit not in ("durable", "batched"):
        raise ValueError(f"FHIR_SERVER_AUDIT must be durable or batched, not {settings.audit!r}.")
    if 0 < settings.audit_days < settings.audit_minimum_days:
        raise ValueError("FHIR_SERVER_AUDIT_DAYS must not be less than FHIR_SERVER_AUDIT_MINIMUM_DAYS.")
    for name, allowed in _CHOICES.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{PREFIX}{name.upper()} must be one of {', '.join(allowed)}, not {getattr(settings, name)!r}.")
    if settings.metrics_token and len(settings.metrics_token) < 16:
        raise ValueError("FHIR_SERVER_METRICS_TOKEN must have at least 16 characters.")
    settings.metrics_endpoint  # noqa: B018 - raises ValueError
    if settings.refresh_grace_seconds > _MAX_REFRESH_GRACE:
        raise ValueError(f"FHIR_SERVER_REFRESH_GRACE_SECONDS must be at most {_MAX_REFRESH_GRACE}.")
    if settings.clock and settings.mode == "production":
        raise ValueError("FHIR_SERVER_CLOCK is not allowed in production mode: ages must follow the real clock.")
    if settings.clock:
        _require_instant(settings.clock)
    _require_zone(settings.search_timezone)
    if not settings.origin.startswith(("http://", "https://")) or settings.origin.endswith("/"):
        raise ValueError("FHIR_SERVER_ORIGIN must be scheme://host[:port] without a trailing slash.")
    if settings.mode == "production" and settings.origin.startswith("http:") and not _LOOPBACK.fullmatch(settings.origin):
        raise ValueError("FHIR_SERVER_ORIGIN must be https in production, because cookies and tokens must be sent encrypted.")
    return settings


def _require_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"FHIR_SERVER_SEARCH_TIMEZONE must be a time zone such as America/New_York, not {name!r}.") from None


def _require_instant(text: str) -> None:
    try:
        fixed_clock(text)
    except ValueError as error:
        raise ValueError(f"FHIR_SERVER_CLOCK: {error}") from None
