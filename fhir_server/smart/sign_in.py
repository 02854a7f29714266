"""Signing in: guesses are counted before they are checked, so parallel guessing gains nothing.

Each guess takes one of a few slots per account and per address, which come free again after fifteen minutes
or when the right password is given.  Nobody is locked out for good, and being locked out reads like a wrong
password, so the page tells a guesser nothing.
"""

from __future__ import annotations

from fhir_server.smart.core import MINUTE, digest
from fhir_server.smart.users import User, canonical, find, password_fits
from fhir_server.store import Secrets, Store

WINDOW = 15 * MINUTE
PER_USER = 5
PER_ADDRESS = 20  # a ward or a family shares one address
LONGEST = 1024  # characters of a password that are looked at


async def signed_in(store: Store, username: str, password: str, address: str, now: int) -> User | None:
    """The account, if the password is its own and neither it nor the address is locked out."""
    name = digest(f"user:{canonical(username)}")
    slots = [
        await _slot(store.secrets, name, PER_USER, now),
        await _slot(store.secrets, digest(f"address:{address}"), PER_ADDRESS, now),
    ]
    user = await find(store, username)
    fits = await password_fits(user, password[:LONGEST])
    if not fits or None in slots:
        return None
    for slot in (slots[1], *(f"{name}:{number}" for number in range(PER_USER))):
        await store.secrets.take("attempt", str(slot), now)
    return user


async def _slot(secrets: Secrets, name: str, most: int, now: int) -> str | None:
    for number in range(most):
        slot = f"{name}:{number}"
        if await secrets.keep("attempt", slot, b"", now + WINDOW):
            return slot
    return None
