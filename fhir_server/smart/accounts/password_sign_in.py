"""Checks a password sign-in and limits guessing.

Each attempt takes one slot of the account and one of the IP address (:mod:`~fhir_server.smart.accounts.attempts`).  On a
device on which the user has signed in before, it takes a slot of that device instead, so guesses from elsewhere do not
lock the owner out.  No account is locked for good, and a reached limit gives the same answer as a wrong password.
"""

from __future__ import annotations

from typing import Final

from fhir_server.smart.accounts import attempts, known_devices
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.users import User, canonical, find, matches_password
from fhir_server.smart.core.rate_limits import counted_address
from fhir_server.store import KeyValueStore, Store

PER_ADDRESS: Final = 20  # a hospital ward or a family shares one address


async def check_password_sign_in(store: Store, username: str, password: str, address: str, now: int, device: str = "") -> User | None:
    """Return the account if the password is right and no limit is reached.  Counts the attempt.

    ``address`` is the client's IP address, ``device`` the device cookie of its browser.  A right password resets the
    limit of the account (or of the device) and releases the slot of the address.
    """
    values, name = store.key_values, canonical(username)
    limits = [AttemptLimit(f"user:{name}", username=name), AttemptLimit(f"address:{counted_address(address)}", PER_ADDRESS)]
    own_device = [AttemptLimit(f"device:{device}:{name}", username=name)] if await known_devices.is_known(store, device, name, now) else []
    if slots := await _take_slots(values, own_device, now):
        limits = own_device
    else:
        slots = await _take_slots(values, limits, now)
    user = await find(store, username)
    # The password is checked even if a limit is reached: the time of the answer does not depend on it.
    matches = await matches_password(user, password)
    if not matches or slots is None:
        return None
    for slot in slots[1:]:
        await attempts.release(values, slot, now)
    await limits[0].reset(values, now)
    return user


async def _take_slots(values: KeyValueStore, limits: list[AttemptLimit], now: int) -> list[str] | None:
    """Take one slot of each limit.  None if there are no limits, or if one of them is reached."""
    slots = [slot for limit in limits if (slot := await limit.take(values, now)) is not None]
    return slots if slots and len(slots) == len(limits) else None
