"""The door before the whole server: in maintenance it is closed; while the server is read-only, pages and endpoints that change
something are refused before they begin.

The FHIR API and SCIM refuse writes by themselves, so that each refusal has its audit line and a batch may still read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fhir_server.errors import RETRY_READ_ONLY, Problem
from fhir_server.operation.state import MAINTENANCE, READ_ONLY, OperationState

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
Page = Callable[[Scope, str], App]

STILL_OPEN: Final = frozenset(
    {
        "/account/sessions",
        "/apps",
        "/apps/all",
        "/ehr",
        "/ehr/search",
        "/oauth/authorize",
        "/oauth/cancel",
        "/oauth/consent",
        "/oauth/introspect",
        "/oauth/logout",
        "/oauth/logout/confirm",
        "/oauth/par",
        "/oauth/record",
        "/oauth/record/search",
        "/oauth/revoke",
        "/oauth/token",
        "/oauth/userinfo",
        "/oauth/visit",
        "/sign-in",
        "/sign-in/second",
        "/sign-out",
        "/signed-out/apps",
    }
)
"""Paths outside the FHIR API that take POST while the server is read-only: signing in, giving an app access to read, ending access."""

_REFUSED_READS: Final = ("/links/callback",)  # it would store what another organization returned
_STYLE: Final = "/portal.css"
_FHIR: Final = "/fhir"
_OWN_REFUSALS: Final = ("/fhir", "/scim")


class Door:
    """``app`` behind the door.  ``page`` makes the refusal, with a text, of a page or of an OAuth endpoint."""

    def __init__(self, app: App, state: OperationState, page: Page) -> None:
        self._app = app
        self._state = state
        self._page = page

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if self._state.is_read_only and scope["type"] == "websocket":
            # What is bound to it would have to be stored.
            await _fhir_refusal(f"{self._unwritable} {self._state.operation.notice}".strip(), "websocket.")(scope, receive, send)
        elif self._state.is_read_only and scope["type"] == "http" and (text := self._refusal(scope["method"], scope["path"])):
            text = f"{text} {self._state.operation.notice}".strip()
            answer = _fhir_refusal(text) if _is_fhir(scope["path"]) else self._page(scope, text)
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    @property
    def _unwritable(self) -> str:
        return MAINTENANCE if self._state.is_closed else READ_ONLY

    def _refusal(self, method: str, path: str) -> str:
        """Why a request is refused; "" if it is not."""
        if method == "OPTIONS":
            return ""
        if self._state.is_closed:
            return "" if path == _STYLE and method in ("GET", "HEAD") else MAINTENANCE
        if path.startswith(_OWN_REFUSALS):
            return ""
        is_open = path not in _REFUSED_READS if method in ("GET", "HEAD") else method == "POST" and path in STILL_OPEN
        return "" if is_open else READ_ONLY


def _is_fhir(path: str) -> bool:
    return path == _FHIR or path.startswith(_FHIR + "/")


def _fhir_refusal(text: str, prefix: str = "") -> App:
    body = Problem("read_only", text).outcome()
    headers = [
        (b"content-type", b"application/fhir+json; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % RETRY_READ_ONLY),
        (b"cache-control", b"no-store"),
        (b"access-control-allow-origin", b"*"),
        (b"access-control-expose-headers", b"Retry-After"),
    ]

    async def answer(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": f"{prefix}http.response.start", "status": 503, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})

    return answer
