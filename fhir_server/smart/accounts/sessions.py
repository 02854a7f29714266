"""Browser sessions: a random cookie, a record of who signed in, and a second record that lapses when idle.

Two records, because renewing the idle time must not bring back a session that a sign-out has just removed.
The form token is derived from the cookie, so that visitors who have not signed in need no record at all.
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


class Session(msgspec.Struct, frozen=True):
    """Who is signed in at this browser, since when (microseconds), and the ``token`` its forms must carry.

    ``key`` names the session to what ends with it (a grant of ``online_access``).
    """

    user: User
    started: int
    token: str
    key: str = ""


class OpenSession(msgspec.Struct, frozen=True):
    """A session as its person is shown it: ``browser`` in words, since when (microseconds); ``key`` as in :class:`Session`."""

    key: str
    browser: str
    started: int


def cookie_name(smart: SmartContext) -> str:
    return "__Host-session" if smart.origin.startswith("https:") else "session"


def form_token(cookie: str) -> str:
    """The hidden field ``token`` of every form shown to the browser that holds this cookie."""
    return digest(f"form:{cookie}")


def is_form_token(cookie: str, token: str) -> bool:
    return bool(cookie) and hmac.compare_digest(form_token(cookie).encode(), token.encode())


async def start(smart: SmartContext, user: User, browser: str = "") -> str:
    """The new cookie of someone who has just signed in; whatever cookie the browser had before is worth nothing."""
    cookie, now = new_secret(), smart.now()
    record = msgspec.json.encode(_StoredSession(user.username, now, browser))
    await smart.store.key_values.put(_SEEN, digest(cookie), b"", now + SESSION_IDLE, users.session_family(user.username))
    await smart.store.key_values.put(_SESSION, digest(cookie), record, now + SESSION_LIFE, users.session_family(user.username))
    return cookie


async def current(smart: SmartContext, cookie: str) -> Session | None:
    """The live session of this cookie; being asked for counts as use."""
    now, key, secrets = smart.now(), digest(cookie), smart.store.key_values
    if not cookie or await secrets.get(_SEEN, key, now) is None:
        return None
    text = await secrets.get(_SESSION, key, now)
    kept = None if text is None else msgspec.json.decode(text, type=_StoredSession)
    user = None if kept is None else await users.find(smart.store, kept.username)
    if kept is None or user is None or user.disabled:
        return None
    await secrets.put(_SEEN, key, b"", now + SESSION_IDLE, users.session_family(user.username))
    return Session(user, kept.started, form_token(cookie), key)


async def remaining_lifetime(smart: SmartContext, key: str) -> int:
    """How long this sign-in still counts, in microseconds; 0 once it has been signed out or has run out.

    Idle time is not counted: somebody who is at work in an app is not idle, though no page of ours sees it.
    """
    now = smart.now()
    text = await smart.store.key_values.get(_SESSION, key, now)
    return 0 if text is None else max(0, msgspec.json.decode(text, type=_StoredSession).started + SESSION_LIFE - now)


async def end(smart: SmartContext, cookie: str) -> None:
    await end_by_key(smart, digest(cookie))


async def end_by_key(smart: SmartContext, key: str) -> None:
    """End the session of this key."""
    for kind in (_SESSION, _SEEN):
        await smart.store.key_values.pop(kind, key, smart.now())


async def list_all(smart: SmartContext, user: User) -> list[OpenSession]:
    """The account's live sessions, the latest first."""
    now, secrets = smart.now(), smart.store.key_values
    found = [(key, msgspec.json.decode(text, type=_StoredSession)) for key, text in await secrets.list_all(_SESSION, now)]
    own = [OpenSession(key, kept.browser, kept.started) for key, kept in found if kept.username == user.username]
    live = [one for one in own if await secrets.get(_SEEN, one.key, now) is not None]
    return sorted(live, key=lambda one: -one.started)


_SESSION: Final = SESSION
_SEEN: Final = "session-seen"
