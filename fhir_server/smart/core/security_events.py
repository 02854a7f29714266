"""Security events for the audit log: sign-ins, grants, tokens, accounts and registrations, successful or refused.

An event contains no code, token or password.  It contains a user name only if the account exists, because a person may
type a password into that field.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

SecurityEventKind = Literal[
    "sign-in",
    "sign-out",
    "allow-app",
    "end-app",
    "open-app",
    "token",
    "revoke",
    "register-app",
    "change-app",
    "remove-app",
    "share-record",
    "end-sharing",
    "new-code",
    "use-code",
    "link-account",
    "unlink-account",
    "operator-token",
    "add-user",
    "remove-user",
    "change-account",
    "merge-users",
    "read-users",
    "link-subject",
    "unlink-subject",
    "add-provider",
    "remove-provider",
    "trust-publisher",
    "distrust-publisher",
    "invite-developer",
    "add-organisation",
    "remove-organisation",
    "rotate-keys",
    "import-codes",
    "create-store",
    "start-server",
    "stop-server",
    "load",
    "export",
    "relabel",
    "copy-store",
    "read-audit",
    "restart-audit",
    "backup",
    "restore",
    "reseal-keys",
    "erase-record",
    "purge-audit",
    "purge-history",
    "change-operation",
    "end-all-access",
    "reload",
    "add-package",
    "remove-package",
]


class SecurityEvent(msgspec.Struct, frozen=True):
    """One event.  ``about`` has references (``Patient/x``) to the resources concerned; ``done`` is False if it failed or was refused.

    ``username``, ``client_id`` and ``address`` (IP address) are "" if unknown.
    """

    kind: SecurityEventKind
    done: bool = True
    username: str = ""
    client_id: str = ""
    address: str = ""
    about: tuple[str, ...] = ()
    detail: dict[str, str] = {}


EventRecorder = Callable[[SecurityEvent, int], Awaitable[None]]


async def discard_event(event: SecurityEvent, at: int) -> None:
    """The recorder of a server without an audit log."""


def patient_references(id: str | None) -> tuple[str, ...]:
    """``about`` of an event that concerns one patient; empty for None."""
    return (f"Patient/{id}",) if id else ()
