"""What the audit journal is told of this room: who signed in, allowed, got, changed or ended what, and whether it came about.

Nothing secret goes in: no code, token or password, and a user name only where there is such an account (what was typed may
be a password).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

Kind = Literal[
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
]


class SecurityEvent(msgspec.Struct, frozen=True):
    """One act.  ``about`` are references (``Patient/x``) to what it was about; ``done`` is false for what was refused or failed.

    ``username``, ``client_id`` and ``address`` are "" where nobody, no client or no network address is known.
    """

    kind: Kind
    done: bool = True
    username: str = ""
    client_id: str = ""
    address: str = ""
    about: tuple[str, ...] = ()
    detail: dict[str, str] = {}


EventRecorder = Callable[[SecurityEvent, int], Awaitable[None]]


async def discard_event(act: SecurityEvent, at: int) -> None:
    """The journal of a server that keeps none."""


def patient_references(id: str | None) -> tuple[str, ...]:
    """``about`` for an act about one patient, or about none."""
    return (f"Patient/{id}",) if id else ()
