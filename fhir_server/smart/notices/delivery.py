"""Sends the notices of the queue (:mod:`~fhir_server.smart.core.notice_queue`).

Each server process looks every few seconds for what is due.  Of several processes one sends a notice.  If the mail server does not take it,
it is sent again after growing pauses, for a day.  A process that dies while it sends may let another one send it again, with the same
``Message-ID``: each is sent once or twice, never not at all.  Whom a notice goes to and what it says is decided here, at each attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from fhir_server.smart.accounts import account_codes, password_codes, user_index
from fhir_server.smart.accounts.account_codes import Opening
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import HOUR, MINUTE, SmartContext
from fhir_server.smart.core.mail import Message, UndeliverableError
from fhir_server.smart.core.notice_queue import LIFE, Notice, NoticeKind
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.notices import contacts, wording

PAUSES: Final = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 2 * HOUR)  # after each attempt, before the next; the last one again and again
MAX_ACCOUNTS: Final = 10  # that a message helps with: families share an address
_LOOK_SECONDS: Final = 2
_BATCH: Final = 50
_AT_A_TIME: Final = 4
_log = logging.getLogger(__name__)
Letter = tuple[str, tuple[str, str]]  # the address, and subject and text


async def keep_sending(smart: SmartContext, is_writable: Callable[[], bool]) -> None:
    """Send what is due, as long as the process runs and while the server may write."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if not is_writable():
            continue
        try:
            await send_due(smart)
        except Exception:
            _log.exception("Notices could not be sent; the server will try again.")


async def send_due(smart: SmartContext) -> None:
    """Send the notices that are due."""
    limit = asyncio.Semaphore(_AT_A_TIME)

    async def one(notice: Notice) -> None:
        async with limit:
            await _send(smart, notice)

    await asyncio.gather(*map(one, await notice_queue.due_notices(smart.store, smart.now(), _BATCH)))


async def _send(smart: SmartContext, notice: Notice) -> None:
    """Send a notice.  Its next place in the queue is taken first, so that nobody else sends it meanwhile."""
    pause = PAUSES[min(notice.attempts, len(PAUSES) - 1)]
    claimed = await notice_queue.postpone(smart.store, notice, pause, smart.now())
    if claimed is None:
        return
    try:
        letter = await _COMPOSERS[claimed.kind](smart, claimed) if smart.mail.is_available else None
        if letter is not None:
            address, (subject, text) = letter
            await smart.mail.send(Message(claimed.id, address, subject, text))
    except UndeliverableError as error:
        if not error.is_final and smart.now() + pause < claimed.created + LIFE:
            _log.warning("A notice (%s) was not taken and will be sent again: %s", claimed.kind, error)
            return
        _log.error("A notice (%s) could not be sent: %s", claimed.kind, error)
    await notice_queue.remove(smart.store, claimed)


async def _security(smart: SmartContext, notice: Notice) -> Letter | None:
    if notice.address:
        return notice.address, wording.security(smart)
    user = await user_index.find_by_subject(smart.store, notice.subject)
    contact = await contacts.find(smart.store, user) if user is not None else None
    return (contact.address, wording.security(smart)) if contact is not None else None


async def _contact_code(smart: SmartContext, notice: Notice) -> Letter | None:
    user = await user_index.find_by_subject(smart.store, notice.subject)
    made = await contacts.new_code(smart.store, user, smart.now()) if user is not None else None
    return (made[0], wording.contact_code(smart, made[1])) if made is not None else None


async def _recovery(smart: SmartContext, notice: Notice) -> Letter | None:
    """One code for each account with the address.  The message goes to the verified address, not to what was typed."""
    codes, address = [], ""
    for user, contact in (await contacts.accounts_of(smart.store, notice.address))[:MAX_ACCOUNTS]:
        address = address or contact.address
        codes.append((user.username, await password_codes.issue(smart.store, user, smart.now(), password_codes.MAIL)))
        await smart.record(SecurityEvent("new-code", username=user.username, detail={"for": "password", "by": "mail"}))
    return (address, wording.recovery(smart, codes)) if codes else None


async def _invitation(smart: SmartContext, notice: Notice) -> Letter | None:
    opening = msgspec.convert({**notice.detail, "address": notice.address}, Opening)
    return notice.address, wording.invitation(smart, await account_codes.issue(smart.store, opening, smart.now()))


_COMPOSERS: Final[Mapping[NoticeKind, Callable[[SmartContext, Notice], Awaitable[Letter | None]]]] = {
    "security": _security,
    "contact-code": _contact_code,
    "recovery": _recovery,
    "invitation": _invitation,
}
