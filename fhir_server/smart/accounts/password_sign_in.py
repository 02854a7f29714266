"""Signing in: guesses are counted before they are checked, so parallel guessing gains nothing.

Each guess takes one of a few slots per account and per address, which come free again after fifteen minutes
or when the right password is given.  Nobody is locked out for good, and being locked out reads like a wrong
password, so the page tells a guesser nothing.  A device on which this person has signed in before has slots of its own:
there a guesser elsewhere keeps nobody out.
"""

from __future__ import annotations

from fhir_server.smart.accounts import known_devices
from fhir_server.smart.accounts.users import User, canonical, find, password_fits
from fhir_server.smart.core.context import MINUTE, digest
from fhir_server.smart.core.rate_limits import counted_address
from fhir_server.store import KeyValueStore, Store

WINDOW = 15 * MINUTE
PER_USER = 5
PER_ADDRESS = 20  # a ward or a family shares one address


async def check_password_sign_in(store: Store, username: str, password: str, address: str, now: int, device: str = "") -> User | None:
    """The account, if the password is its own and neither it nor the address is locked out.  ``device``: this browser's cookie."""
    secrets, name = store.key_values, canonical(username)
    places = {digest(f"user:{name}"): PER_USER, digest(f"address:{counted_address(address)}"): PER_ADDRESS}
    own = {digest(f"device:{device}:{name}"): PER_USER} if await known_devices.is_known(store, device, name, now) else {}
    slots = await _slots(secrets, own, now) or await _slots(secrets, places, now)
    user = await find(store, username)
    fits = await password_fits(user, password)
    if not fits or slots is None:
        return None
    account, *others = slots
    for slot in (*others, *(f"{account.partition(':')[0]}:{number}" for number in range(PER_USER))):
        await secrets.pop("attempt", slot, now)
    return user


async def _slots(secrets: KeyValueStore, places: dict[str, int], now: int) -> list[str] | None:
    """One slot in each of these places; None if there are no places, or one of them has none left."""
    taken = [await _slot(secrets, name, most, now) for name, most in places.items()]
    found = [slot for slot in taken if slot is not None]
    return found if found and len(found) == len(taken) else None


async def _slot(secrets: KeyValueStore, name: str, most: int, now: int) -> str | None:
    for number in range(most):
        slot = f"{name}:{number}"
        if await secrets.put_if_absent("attempt", slot, b"", now + WINDOW):
            return slot
    return None
