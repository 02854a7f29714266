"""What every answer tells browsers, be it a page, a document, a refusal or the API's (OWASP ASVS 5.0, 3.2 and 3.4).

An answer's own headers stand; these are added where it has none of the name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

# For what is no page: opened as one, it may load, run and send nothing.
_NO_PAGE: Final = b"default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
_ALWAYS: Final[Headers] = (
    (b"content-security-policy", _NO_PAGE),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),  # apps read what is theirs to read by CORS, which this does not touch
)
_HTTPS_ONLY: Final[Headers] = ((b"strict-transport-security", b"max-age=31536000; includeSubDomains"),)


def security_headers(origin: str) -> Headers:
    """The headers for a server whose callers reach it at ``origin``."""
    return _ALWAYS + (_HTTPS_ONLY if origin.startswith("https:") else ())


def with_security_headers(send: Send, headers: Headers) -> Send:
    """``send``, with ``headers`` added to the answer where it has none of the name."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            added = [header for header in headers if header[0] not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending
