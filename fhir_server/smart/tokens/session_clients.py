"""Which clients a browser session has signed its user in to, so that they can be told when it ends (OpenID Connect Back-Channel Logout)."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.core.context import SESSION_LIFE, SmartContext, digest

_KIND: Final = "session-clients"
_ATTEMPTS: Final = 20


def session_id(session_key: str, client_id: str) -> str:
    """The ``sid`` of a session for one client: two clients cannot compare theirs, and it opens nothing."""
    return digest(f"sid {session_key} {client_id}") if session_key else ""


async def add(smart: SmartContext, session_key: str, client_id: str) -> None:
    """Note that the session has signed its user in to a client.  Several processes may do so at once."""
    values, ends = smart.store.key_values, smart.now() + SESSION_LIFE
    for _ in range(_ATTEMPTS):
        text = await values.get(_KIND, session_key, smart.now())
        known = () if text is None else msgspec.json.decode(text, type=tuple[str, ...])
        if client_id in known:
            return
        changed = msgspec.json.encode((*known, client_id))
        if text is None and await values.put_if_absent(_KIND, session_key, changed, ends):
            return
        if text is not None and await values.replace_value(_KIND, session_key, text, changed):
            return


async def take(smart: SmartContext, session_key: str) -> tuple[str, ...]:
    """The clients of a session that has ended.  Of several callers one gets them."""
    text = await smart.store.key_values.pop(_KIND, session_key, smart.now())
    return () if text is None else msgspec.json.decode(text, type=tuple[str, ...])
