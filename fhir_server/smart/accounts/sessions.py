"""Browser sessions: a random cookie, a record of the signed-in user, and a second record that expires when idle.

There are two records: one belongs to the family of the account's sessions, which a change of the account ends, the other to that of
this session, which a sign-out ends.  A session without one of them has ended, and with it the access of apps that depend on it
(``online_access``): both deletions advance the permission epoch, so that no server process goes on with what it remembers.
Extending the idle time changes a record only if it is still there.

The form token is derived from the cookie, so browsers without a session need no record.
"""

from __future__ import annotations

import hmac

import msgspec

from fhir_server.smart.accounts import session_use, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import session_ends
from fhir_server.smart.core.context import SESSION_IDLE, SESSION_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.smart.core.token_grants import SESSION, SESSION_SEEN, session_end


class _StoredSession(msgspec.Struct, frozen=True):
    username: str
    started: int
    browser: str = ""
    authenticated: int | None = None  # None: when it started (of an earlier version)
    amr: tuple[str, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """A session: its user, when it started (microseconds), and the ``token`` that its forms must send.

    ``key`` identifies the session in grants that end with it (``online_access``).  ``authenticated`` is when the person last proved
    who they are, in microseconds (OpenID ``auth_time``); 0 if that is not known.  ``amr`` says how (RFC 8176).  ``records`` are those that
    the switch on a page offers, with the paths of their pages (:mod:`page_sessions`).
    """

    user: User
    started: int
    token: str
    key: str = ""
    authenticated: int = 0
    amr: tuple[str, ...] = ()
    records: tuple[tuple[str, RecordChoice], ...] = ()


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


async def start(smart: SmartContext, user: User, browser: str = "", *, authenticated: int, amr: tuple[str, ...] = ()) -> str:
    """Start a session and return its cookie, which is always new (no session fixation).

    Only for a person who has just signed in, or given the password again.  ``authenticated`` and ``amr`` as in :class:`Session`.
    """
    cookie, now = new_secret(), smart.now()
    key, lapses = digest(cookie), now + SESSION_IDLE
    record = msgspec.json.encode(_StoredSession(user.username, now, browser, authenticated, amr))
    await smart.store.key_values.put(SESSION_SEEN, key, str(lapses).encode(), lapses, session_ends.family(key))
    await smart.store.key_values.put(SESSION, key, record, now + SESSION_LIFE, session_ends.account_family(user.username))
    return cookie


async def current(smart: SmartContext, cookie: str, *, is_active: bool = True) -> Session | None:
    """Return the open session of this cookie, or None.

    Extends its idle time, unless the request is one that an app sends without the user (``is_active`` is False).
    """
    now, key, values = smart.now(), digest(cookie), smart.store.key_values
    if not cookie or await values.get(SESSION_SEEN, key, now) is None:
        return None
    text = await values.get(SESSION, key, now)
    stored = None if text is None else msgspec.json.decode(text, type=_StoredSession)
    user = None if stored is None else await users.find(smart.store, stored.username)
    if stored is None or user is None or user.disabled:
        return None
    if is_active:
        await session_use.extend(smart.store, key, now, interval=0)
    authenticated = stored.started if stored.authenticated is None else stored.authenticated
    return Session(user, stored.started, form_token(cookie), key, authenticated, stored.amr)


async def remaining_lifetime(smart: SmartContext, key: str) -> int:
    """Return the microseconds until the session of this key expires at the latest; 0 if it has ended."""
    now = smart.now()
    text = await smart.store.key_values.get(SESSION, key, now) if await session_end(smart.store, key, now) else None
    return 0 if text is None else max(0, msgspec.json.decode(text, type=_StoredSession).started + SESSION_LIFE - now)


async def end(smart: SmartContext, cookie: str) -> None:
    """End the session of this cookie."""
    await end_by_key(smart, digest(cookie))


async def end_by_key(smart: SmartContext, key: str) -> None:
    """End the session of this key, and at once the access of apps that ends with it."""
    await session_ends.end(smart.store, key)


async def list_all(smart: SmartContext, user: User) -> list[OpenSession]:
    """Return the account's open sessions, the latest first."""
    now, values = smart.now(), smart.store.key_values
    listed = await values.list_family(SESSION, session_ends.account_family(user.username), now)
    stored = [(key, msgspec.json.decode(text, type=_StoredSession)) for key, text in listed]
    own = [OpenSession(key, session.browser, session.started) for key, session in stored]
    active = [session for session in own if await values.get(SESSION_SEEN, session.key, now) is not None]
    return sorted(active, key=lambda session: -session.started)
