"""Checks a password sign-in and limits guessing, so that a right password always passes: at once, or when its turn comes.

Attempts are free within three limits: of the user name at one network address, of the user name, and of the network address.
Beyond them an attempt waits for its turn (:mod:`~fhir_server.smart.accounts.turns`); until then nobody learns whether the password is
right.  Two things keep the attempts of others away from a person: a browser in which the person has signed in has a limit of its own,
and at a network address from which the person has signed in, only attempts at this user name count.

Everything is counted by user name, whether an account has it or not, so the answers do not tell which names exist.  The second of the
two things must not tell either: a wrong password there gets the answer that it gets anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_server.smart.accounts import attempts, known_devices, known_networks
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.turns import Line
from fhir_server.smart.accounts.users import User, account_family, canonical, find, matches_password
from fhir_server.smart.core.context import DAY, MINUTE, SECOND
from fhir_server.smart.core.rate_limits import counted_address
from fhir_server.store import KeyValueStore, Store

PER_NAME_AND_ADDRESS: Final = 5  # wrong passwords in a day
PER_NAME: Final = 20  # in a day, from all addresses
PER_ADDRESS: Final = 20  # in 15 minutes, for all names; a hospital ward or a family shares one address
NAME_INTERVAL: Final = 3 * MINUTE
ADDRESS_INTERVAL: Final = 15 * SECOND
_NAME_PLACES: Final = 3
_ADDRESS_PLACES: Final = 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result: the account if the password is right, else None.

    ``wait``  the microseconds until it may be this browser's turn, if the password was not looked at; 0 if it was
    """

    user: User | None
    wait: int = 0


@dataclass(frozen=True, slots=True)
class _Admission:
    """``wait`` as in :class:`Attempt`.  ``own``: the limit that a right password resets.  ``slots``: what it releases besides."""

    wait: int
    own: AttemptLimit
    slots: tuple[str, ...] = ()
    is_counted: bool = True


async def check_password_sign_in(store: Store, username: str, password: str, address: str, now: int, device: str = "") -> User | None:
    """Return the account if the password is right and it is its turn, as :func:`attempt` does for a browser without a cookie."""
    return (await attempt(store, username, password, address, now, device)).user


async def attempt(store: Store, username: str, password: str, address: str, now: int, device: str = "", browser: str = "") -> Attempt:
    """Check a password and count the attempt.

    ``address`` is the client's IP address, ``device`` the device cookie of its browser, ``browser`` the digest of its session cookie.
    """
    values, name = store.key_values, canonical(username)
    admission = await _own_device(values, device, name, now) if await known_devices.is_known(store, device, name, now) else None
    if admission is None:
        admission = await _stranger(values, name, counted_address(address), browser, now)
    is_known = await known_networks.is_known(values, name, address, now)
    user = await find(store, username)
    # The password is checked in any case: the time of the answer does not depend on what is known, and what is not.
    matches = await matches_password(user, password)
    if user is None or not matches or (admission.wait and not (is_known and admission.is_counted)):
        return Attempt(None, admission.wait)
    for slot in admission.slots:
        await attempts.release(values, slot, now)
    await admission.own.reset(values, now)
    await known_networks.remember(values, name, address, now, account_family(user))
    return Attempt(user)


async def _own_device(values: KeyValueStore, device: str, name: str, now: int) -> _Admission | None:
    limit = AttemptLimit(f"device:{device}:{name}", username=name)
    return _Admission(0, limit) if await limit.take(values, now) is not None else None


async def _stranger(values: KeyValueStore, name: str, address: str, browser: str, now: int) -> _Admission:
    family = attempts.family(name)
    pair = AttemptLimit(f"user:{name} at {address}", PER_NAME_AND_ADDRESS, name, DAY)
    own = await pair.take(values, now)
    of_name = await AttemptLimit(f"user:{name}", PER_NAME, name, DAY).take(values, now)
    of_address = await AttemptLimit(f"address:{address}", PER_ADDRESS).take(values, now)
    lines = []
    if of_address is None:
        lines.append(Line(f"address {address}", ADDRESS_INTERVAL, _ADDRESS_PLACES))
    if own is None or of_name is None:
        lines.append(Line(f"user {name}", NAME_INTERVAL, _NAME_PLACES, family))
    wait = 0
    for line in lines:
        wait = wait or await line.take(values, address, browser, now)
    # What waits takes nothing of what is free, and a turn of the user name is none of its free attempts.
    unused = (of_name, of_address) if wait else (of_name,) if own is None else ()
    for slot in unused:
        if slot is not None:
            await attempts.release(values, slot, now)
    kept = tuple(slot for slot in (of_name, of_address) if slot is not None and slot not in unused)
    return _Admission(wait, pair, kept, is_counted=own is not None)
