"""The e-mail address of an account, to which codes and notices go.  It belongs to the account, not to the record of a patient.

An address is verified when its owner has entered the code that was sent to it.  Only then does it get notices.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import account_events, password_codes, typed_codes, user_index
from fhir_server.smart.accounts.attempts import AttemptLimit
from fhir_server.smart.accounts.users import User, account_family
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import DAY, digest
from fhir_server.smart.notices.addresses import comparable
from fhir_server.store import Store

CODE_LIFE: Final = DAY
_CONTACT: Final = "contact"
_PENDING: Final = "pending-contact"
_BY_ADDRESS: Final = "contact-address"
_LENGTH: Final = 8  # characters of a code: 40 random bits, of which five may be tried in 15 minutes


class Contact(msgspec.Struct, frozen=True):
    """A verified address, and since when it is, in microseconds."""

    address: str
    since: int


class PendingContact(msgspec.Struct, frozen=True):
    """An address whose code is not entered yet.  ``code`` is the digest of the latest one; "" before it is sent."""

    address: str
    code: str = ""


async def find(store: Store, user: User) -> Contact | None:
    """Return the account's verified address; None if it has none."""
    text = await store.key_values.get(_CONTACT, digest(user.subject), 0)
    return None if text is None else msgspec.json.decode(text, type=Contact)


async def find_pending(store: Store, user: User, now: int) -> PendingContact | None:
    """Return the address that waits for its code."""
    text = await store.key_values.get(_PENDING, digest(user.subject), now)
    return None if text is None else msgspec.json.decode(text, type=PendingContact)


async def accounts_of(store: Store, address: str) -> list[tuple[User, Contact]]:
    """Return the accounts with this verified address, by user name, without those that are locked."""
    found = []
    async with store.snapshot() as snapshot:
        named = await snapshot.records_unfiltered(_BY_ADDRESS, f"{digest(comparable(address))} ")
    for _, subject in named:
        user = await user_index.find_by_subject(store, subject.decode())
        contact = await find(store, user) if user is not None and not user.disabled else None
        if user is not None and contact is not None and comparable(contact.address) == comparable(address):
            found.append((user, contact))
    return sorted(found, key=lambda account: account[0].username)


async def propose(store: Store, user: User, address: str, now: int) -> None:
    """Let an address wait for its code, and queue the message with the code.  It replaces one that waits already."""
    record = msgspec.json.encode(PendingContact(address))
    await store.key_values.put(_PENDING, digest(user.subject), record, now + CODE_LIFE, account_family(user))
    await notice_queue.add(store, "contact-code", subject=user.subject)


async def new_code(store: Store, user: User, now: int) -> tuple[str, str] | None:
    """Return the address that waits and a new code for it, which replaces an earlier one.  None if none waits any more."""
    key, values = digest(user.subject), store.key_values
    old = await values.get(_PENDING, key, now)
    if old is None:
        return None
    pending, code = msgspec.json.decode(old, type=PendingContact), typed_codes.generate(_LENGTH)
    new = PendingContact(pending.address, _hashed(user, pending.address, code))
    replaced = await values.replace_value(_PENDING, key, old, msgspec.json.encode(new))
    return (pending.address, typed_codes.format_groups(code)) if replaced else None


async def confirm(store: Store, user: User, typed: str, now: int) -> bool:
    """Verify the address that waits, if this is its code.  The owner is told at the old address and at the new one."""
    key, values = digest(user.subject), store.key_values
    limit = AttemptLimit(f"contact:{user.subject}", username=user.username)
    if await limit.take(values, now) is None:
        return False
    text = await values.get(_PENDING, key, now)
    pending = None if text is None else msgspec.json.decode(text, type=PendingContact)
    if pending is None or not hmac.compare_digest(pending.code, _hashed(user, pending.address, typed_codes.normalize(typed))):
        return False
    if await values.pop(_PENDING, key, now) != text:
        return False
    await limit.reset(values, now)
    await save(store, user, pending.address, now)
    return True


async def save(store: Store, user: User, address: str, now: int) -> None:
    """Store a verified address: its owner has entered its code, or the office has checked it.  Old and new address are told."""
    old = await find(store, user)
    await password_codes.withdraw(store, user, password_codes.MAIL)
    await add(store, user, address, now)
    if old is not None and comparable(old.address) != comparable(address):
        await store.key_values.pop(_BY_ADDRESS, _key(user, old.address), 0)
        await notice_queue.add(store, "security", address=old.address)
    await account_events.record(store, user, "contact", now)


async def add(store: Store, user: User, address: str, now: int) -> None:
    """Store the verified address of an account that has none, and tell nobody: it is new."""
    await store.key_values.put(_BY_ADDRESS, _key(user, address), user.subject.encode(), MAX_INSTANT, account_family(user))
    contact = msgspec.json.encode(Contact(address, now))
    await store.key_values.put(_CONTACT, digest(user.subject), contact, MAX_INSTANT, account_family(user))


async def remove(store: Store, user: User, now: int) -> None:
    """Remove the account's address, and one that waits.  The old one is told."""
    old = await find(store, user)
    for kind in (_PENDING, _CONTACT):
        await store.key_values.pop(kind, digest(user.subject), 0)
    if old is not None:
        await password_codes.withdraw(store, user, password_codes.MAIL)
        await store.key_values.pop(_BY_ADDRESS, _key(user, old.address), 0)
        await notice_queue.add(store, "security", address=old.address)
        await account_events.record(store, user, "contact-ended", now)


def _hashed(user: User, address: str, code: str) -> str:
    return digest(f"{user.subject} {address} {code}")


def _key(user: User, address: str) -> str:
    return f"{digest(comparable(address))} {digest(user.subject)}"
