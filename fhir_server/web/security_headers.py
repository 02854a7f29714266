"""Security headers of every response: pages, documents, errors and the FHIR API (OWASP ASVS 5.0, 3.2 and 3.4).

A header is added only if the response does not set it itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

# For responses that are not pages. If a browser opens one as a page, it can load, run and send nothing.
NOT_A_PAGE: Final = b"default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
_ALWAYS: Final[Headers] = (
    (b"content-security-policy", NOT_A_PAGE),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),  # does not affect CORS, which apps use
)
_HTTPS_ONLY: Final[Headers] = ((b"strict-transport-security", b"max-age=31536000; includeSubDomains"),)


def security_headers(origin: str) -> Headers:
    """Return the headers for a server with this public origin; with Strict-Transport-Security for https."""
    return _ALWAYS + (_HTTPS_ONLY if origin.startswith("https:") else ())


def with_security_headers(send: Send, headers: Headers) -> Send:
    """Return an ASGI ``send`` that adds ``headers`` which the response does not set itself."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            own = {name for name, _ in message["headers"]}
            added = [header for header in headers if header[0] not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_with_headers
