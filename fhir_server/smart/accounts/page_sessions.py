"""The session of a page that has the switch between records: its records are those that the person may open at this moment."""

from __future__ import annotations

import msgspec

from fhir_server.smart.accounts import sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import record_addresses
from fhir_server.smart.core.context import SmartContext


async def current(smart: SmartContext, cookie: str) -> Session | None:
    """The open session of this cookie, with its records; None if there is none."""
    session = await sessions.current(smart, cookie)
    return None if session is None else await with_records(smart, session, session.user)


async def with_records(smart: SmartContext, session: Session, user: User) -> Session:
    """The session with the records of ``user``, who is its user as the account is now; without any for a work account."""
    if user.role != "patient":
        return session
    choices = await smart.records(user.person(), smart.now())
    listed = [(f"{record_addresses.PATH}/{record_addresses.key_of(smart, user.subject, one.patient)}", one) for one in choices]
    return msgspec.structs.replace(session, user=user, records=tuple(listed))
