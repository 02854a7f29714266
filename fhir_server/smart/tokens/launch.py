"""EHR launch: a one-use handle that carries the context of a portal or EHR into an app's authorization.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch.  The handle is bound to one
client and one person, so that it is worth nothing to anyone who comes across it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fhir_server.smart.core.context import LAUNCH_LIFE, digest, new_secret
from fhir_server.smart.tokens import launch_parameters
from fhir_server.store import Store

_KIND = "launch"


class Launch(msgspec.Struct, frozen=True):
    """The context to hand over; ``parameters`` are further launch parameters (``intent``, ...) as the app will see them."""

    client_id: str
    username: str
    patient: str
    encounter: str | None = None
    parameters: dict[str, Any] = {}


async def create_launch(store: Store, launch: Launch, now: int) -> str:
    """A handle, good for five minutes and one authorization: the value of ``launch`` in the app's launch URL.

    Raises ValueError for parameters that SMART does not know or an app could not rely on.
    """
    launch_parameters.check(launch.parameters)
    handle = new_secret()
    await store.key_values.put(_KIND, digest(handle), msgspec.json.encode(launch), now + LAUNCH_LIFE)
    return handle


async def find(store: Store, handle: str, now: int) -> Launch | None:
    text = await store.key_values.get(_KIND, digest(handle), now)
    return None if text is None else msgspec.json.decode(text, type=Launch)


async def consume(store: Store, handle: str, now: int) -> bool:
    """Use the handle up; True for the one caller that does."""
    return await store.key_values.pop(_KIND, digest(handle), now) is not None
