"""The whole server at one origin: which of its applications a URL belongs to."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from fhir_server.bodies import Receive
from fhir_server.interactions.subscription_binding import SOCKET_PATH
from fhir_server.observability.middleware import App
from fhir_server.request_ids import HEADER, take_id
from fhir_server.sending import Send
from fhir_server.web.security_headers import security_headers, with_security_headers

Scope = MutableMapping[str, Any]
_BASE: Final = "/fhir"


class RootApp:
    """The whole server at one origin: the FHIR API at its base, the websocket at its URL, all others with FastAPI.

    The API is not mounted in FastAPI: its middleware and routing take longer than a read, and a mount redirects a POST to
    the base without a trailing slash, where clients send transactions.
    """

    def __init__(self, api: App, pages: App, origin: str = "", sockets: App | None = None) -> None:
        self._api = api
        self._pages = pages
        self._sockets = sockets
        self._security_headers = security_headers(origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] in ("http", "websocket"):
            send = with_security_headers(send, (*self._security_headers, (HEADER, take_id(scope["headers"]))))
        if path == SOCKET_PATH and self._sockets is not None:
            await self._sockets(scope, receive, send)
        elif scope["type"] == "http" and (path == _BASE or path.startswith(_BASE + "/")):
            scope["root_path"] = _BASE
            await self._api(scope, receive, send)
        else:
            await self._pages(scope, receive, send)
