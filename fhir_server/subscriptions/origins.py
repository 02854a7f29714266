"""From which web pages a client may open a websocket (RFC 6455, section 10.2; OWASP ASVS 5.0, 4.4.2)."""

from __future__ import annotations

from urllib.parse import urlsplit

from fhir_server.smart.clients.clients import Client


def may_open(origin: str | None, client: Client, own: str) -> bool:
    """Whether a websocket that was opened with this ``Origin`` header may be the client's.

    A browser always sends it: it must be the origin of one of the client's redirect URIs, to which its tokens go, or the server's
    ``own``.  Apps that are no pages send none, or the server's own.
    """
    return origin is None or origin == own or (origin != "" and origin in {_origin_of(uri) for uri in client.redirect_uris})


def _origin_of(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""
