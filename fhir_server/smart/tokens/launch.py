"""EHR launch: a one-time handle that passes the context of a portal or EHR to an app's authorization request.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch.  The handle is bound to one client
and one person, so that it is useless to anybody else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fhir_server.smart.core.context import LAUNCH_LIFE, digest, new_secret
from fhir_server.smart.tokens import launch_parameters
from fhir_server.store import Store

_KIND = "launch"


class Launch(msgspec.Struct, frozen=True):
    """The context of a launch.  ``parameters`` are further launch parameters (``intent``, ...), as in the token response."""

    client_id: str
    username: str
    patient: str
    encounter: str | None = None
    parameters: dict[str, Any] = {}


async def create_launch(store: Store, launch: Launch, now: int) -> str:
    """Store a launch and return its handle, the value of ``launch`` in the app's launch URL.

    The handle is valid for five minutes and one authorization.  Raises ValueError for parameters that SMART does not
    define or that are malformed.
    """
    launch_parameters.check(launch.parameters)
    handle = new_secret()
    await store.key_values.put(_KIND, digest(handle), msgspec.json.encode(launch), now + LAUNCH_LIFE)
    return handle


async def find(store: Store, handle: str, now: int) -> Launch | None:
    """The launch with this handle, or None if it is unknown, expired or consumed."""
    text = await store.key_values.get(_KIND, digest(handle), now)
    return None if text is None else msgspec.json.decode(text, type=Launch)


async def consume(store: Store, handle: str, now: int) -> bool:
    """Consume the handle.  True for exactly one caller."""
    return await store.key_values.pop(_KIND, digest(handle), now) is not None
