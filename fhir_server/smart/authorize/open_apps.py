"""The apps that a person allowed in one session and that outlast it: at sign-out they are named, and can be ended.

Access that ends with the session (``online_access``) is not among them.  For each session there is one record of its apps, and
for each grant one that disappears with it, so that nobody's other grants are read.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import ACCESS_LIFE, CODE_LIFE, MINUTE, SESSION_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.token_grants import TokenGrant

_APPS: Final = "session-apps"
_OPEN: Final = "open-app"
_OFFER: Final = "apps-after-sign-out"
_OFFER_LIFE: Final = 5 * MINUTE


class OpenApp(msgspec.Struct, frozen=True):
    """A grant of this session.  ``lasts`` if the person let the app keep access when it is not used (``offline_access``)."""

    family: str
    client_id: str
    patient: str | None
    lasts: bool


class Offer(msgspec.Struct, frozen=True):
    """What the page after the sign-out offers.  ``named`` once the names were shown: the next person at this browser does not see them."""

    username: str
    apps: tuple[OpenApp, ...]
    named: bool = False


async def remember(smart: SmartContext, session: Session, grant: TokenGrant) -> None:
    """Note that the person allowed an app in this session."""
    if grant.session:
        return
    values, now = smart.store.key_values, smart.now()
    app = OpenApp(grant.family, grant.client_id, grant.patient, "offline_access" in grant.scope.split())
    await values.put(_OPEN, digest(app.family), b"", now + (SESSION_LIFE if app.lasts else CODE_LIFE + ACCESS_LIFE), app.family)
    while True:
        before = await values.get(_APPS, session.key, now)
        if any(known.family == app.family for known in _decode(before)):  # it was renewed silently
            return
        apps = msgspec.json.encode((*_decode(before), app))
        if before is not None and await values.replace_value(_APPS, session.key, before, apps):
            return
        family, expires = session_ends.account_family(session.user.username), session.started + SESSION_LIFE
        if before is None and await values.put_if_absent(_APPS, session.key, apps, expires, family):
            return


async def left_open(smart: SmartContext, session: Session) -> tuple[OpenApp, ...]:
    """The apps that were allowed in this session and still have access."""
    values, now = smart.store.key_values, smart.now()
    apps = _decode(await values.get(_APPS, session.key, now))
    return tuple([app for app in apps if await values.get(_OPEN, digest(app.family), now) is not None])


async def offer(smart: SmartContext, username: str, apps: tuple[OpenApp, ...]) -> str:
    """Keep the apps for the page after the sign-out.  Returns the cookie by which this browser may end them."""
    cookie, now = new_secret(), smart.now()
    record = msgspec.json.encode(Offer(username, apps))
    await smart.store.key_values.put(_OFFER, digest(cookie), record, now + _OFFER_LIFE, session_ends.account_family(username))
    return cookie


async def show_offer(smart: SmartContext, cookie: str) -> Offer | None:
    """What to offer this browser.  Names are for the first time only (``named``)."""
    text = await smart.store.key_values.get(_OFFER, digest(cookie), smart.now()) if cookie else None
    if text is None:
        return None
    found = msgspec.json.decode(text, type=Offer)
    shown = msgspec.json.encode(msgspec.structs.replace(found, named=True))
    if found.named or await smart.store.key_values.replace_value(_OFFER, digest(cookie), text, shown):
        return found
    return msgspec.structs.replace(found, named=True)  # shown by another request at this moment


async def take_offer(smart: SmartContext, cookie: str) -> Offer | None:
    """The offer, for one caller."""
    text = await smart.store.key_values.pop(_OFFER, digest(cookie), smart.now()) if cookie else None
    return None if text is None else msgspec.json.decode(text, type=Offer)


def _decode(text: bytes | None) -> tuple[OpenApp, ...]:
    return () if text is None else msgspec.json.decode(text, type=tuple[OpenApp, ...])
