"""Browser sessions: a random cookie, a record of the signed-in user, and a second record that expires when idle.

There are two records because extending the idle time must not restore a session that a sign-out has just removed.
The form token is derived from the cookie, so browsers without a session need no record.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SESSION_IDLE, SESSION_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.token_grants import SESSION


class _StoredSession(msgspec.Struct, frozen=True):
    username: str
    started: int
    browser: str = ""
    amr: tuple[str, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """A session: its user, when it started (microseconds), and the ``token`` that its forms must send.

    ``key`` identifies the session in grants that end with it (``online_access``).  ``amr`` says how the user signed in (RFC 8176).
    """

    user: User
    started: int
    token: str
    key: str = ""
    amr: tuple[str, ...] = ()


class OpenSession(msgspec.Struct, frozen=True):
    """A session in the user's list: a description of the browser, the start (microseconds); ``key`` as in :class:`Session`."""

    key: str
    browser: str
    started: int


def cookie_name(smart: SmartContext) -> str:
    return "__Host-session" if smart.origin.startswith("https:") else "session"


def form_token(cookie: str) -> str:
    """Return the value of the hidden field ``token`` in every form rendered for the browser with this cookie."""
    return digest(f"form:{cookie}")


def is_form_token(cookie: str, token: str) -> bool:
    return bool(cookie) and hmac.compare_digest(form_token(cookie).encode(), token.encode())


async def start(smart: SmartContext, user: User, browser: str = "", amr: tuple[str, ...] = ()) -> str:
    """Start a session and return its cookie, which is always new (no session fixation)."""
    cookie, now = new_secret(), smart.now()
    record = msgspec.json.encode(_StoredSession(user.username, now, browser, amr))
    await smart.store.key_values.put(_SEEN, digest(cookie), b"", now + SESSION_IDLE, users.session_family(user.username))
    await smart.store.key_values.put(_SESSION, digest(cookie), record, now + SESSION_LIFE, users.session_family(user.username))
    return cookie


async def current(smart: SmartContext, cookie: str, *, is_active: bool = True) -> Session | None:
    """Return the open session of this cookie, or None.

    Extends its idle time, unless the request is one that an app sends without the user (``is_active`` is False).
    """
    now, key, values = smart.now(), digest(cookie), smart.store.key_values
    if not cookie or await values.get(_SEEN, key, now) is None:
        return None
    text = await values.get(_SESSION, key, now)
    stored = None if text is None else msgspec.json.decode(text, type=_StoredSession)
    user = None if stored is None else await users.find(smart.store, stored.username)
    if stored is None or user is None or user.disabled:
        return None
    if is_active:
        await values.put(_SEEN, key, b"", now + SESSION_IDLE, users.session_family(user.username))
    return Session(user, stored.started, form_token(cookie), key, stored.amr)


async def remaining_lifetime(smart: SmartContext, key: str) -> int:
    """Return the microseconds until the session of this key expires; 0 if it has ended.

    Ignores the idle time: a user who works in an app sends no requests to the pages of this server.
    """
    now = smart.now()
    text = await smart.store.key_values.get(_SESSION, key, now)
    return 0 if text is None else max(0, msgspec.json.decode(text, type=_StoredSession).started + SESSION_LIFE - now)


async def end(smart: SmartContext, cookie: str) -> None:
    """End the session of this cookie."""
    await end_by_key(smart, digest(cookie))


async def end_by_key(smart: SmartContext, key: str) -> None:
    """End the session of this key."""
    for kind in (_SESSION, _SEEN):
        await smart.store.key_values.pop(kind, key, smart.now())


async def list_all(smart: SmartContext, user: User) -> list[OpenSession]:
    """Return the account's open sessions, the latest first."""
    now, values = smart.now(), smart.store.key_values
    stored = [(key, msgspec.json.decode(text, type=_StoredSession)) for key, text in await values.list_all(_SESSION, now)]
    own = [OpenSession(key, session.browser, session.started) for key, session in stored if session.username == user.username]
    active = [session for session in own if await values.get(_SEEN, session.key, now) is not None]
    return sorted(active, key=lambda session: -session.started)


_SESSION: Final = SESSION
_SEEN: Final = "session-seen"
