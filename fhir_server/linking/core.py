"""What every part of this room needs: :class:`Linking`, the addresses it may call, and what it says when a link fails."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from fhir_server.smart.core import Smart

NO_ANSWER: Final = "The other health system cannot be reached at the moment. Try again later."
BAD_ANSWER: Final = "The other health system gave an answer that cannot be used. Try again later."
ENDED: Final = "The other health system does not accept this link any longer. Link the account again."


class LinkProblem(Exception):
    """Something a person can be told; the text is for her, and quotes nothing that another server sent."""


class Unreachable(LinkProblem):
    """The other system gave no usable answer; the link may be as good as before."""


class Ended(LinkProblem):
    """The other system, or time, has ended the link; only linking again helps."""


class NotShared(LinkProblem):
    """The other system does not give out this kind of information over this link."""


@dataclass(frozen=True, slots=True)
class Linking:
    """The room, wired.

    ``transport``  carries the calls to other systems; None: the network
    ``deadline``   seconds after which a call to another system is given up, however busily it answers
    """

    smart: Smart
    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20

    @property
    def redirect_uri(self) -> str:
        """Where other systems send the person back; what they must have registered for us."""
        return f"{self.smart.origin}/links/callback"


def origin_of(url: str) -> str:
    """``scheme://host[:port]``, in one spelling for each origin."""
    parts = urlsplit(url)
    port = parts.port
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, default) else "")


def callable_url(smart: Smart, url: object) -> bool:
    """Whether we may send anyone, or anything, there: https, or plain http to this machine outside production."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or any(sign in url for sign in " \\#"):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and smart.mode in ("demo", "test") and _loopback(host))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
