"""Recognizes URLs of this server in every spelling (RFC 3986, section 6): one resource must have one name.

The same resource is at ``http://host/fhir/Patient/1``, ``HTTP://HOST:80//fhir/./Patient/1/`` and ``http://host/fhir/%50atient/1``.
A text that was not recognized would be taken for a reference to another server, and could point to a hidden row.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

_URL: Final = re.compile(r"(https?):/*([^/?#]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_CACHED: Final = 500  # characters of a URL
_MAX_FOREIGN: Final = 1000
_MAX_DECODINGS: Final = 3  # of percent-encoding within percent-encoding


class _Place(NamedTuple):
    """Where a URL leads: host, port ("" for the scheme's own) and path segments; ``rest`` is the query and fragment as written."""

    host: str
    port: str
    segments: tuple[str, ...]
    rest: str


class ServerBase:
    """This server's FHIR base URL, such as ``https://host/fhir``; ``""`` recognizes nothing.

    ``aliases`` are base URLs that count as this one: those of the system whose records are loaded into this store.
    """

    def __init__(self, base: str, aliases: tuple[str, ...] = ()) -> None:
        self.base = base
        self._foreign: set[bytes] = set()  # authorities of other servers: most resources have the same few
        self._places = tuple(place for place in map(_place, (base, *aliases)) if place is not None)

    def may_have_authority(self, authorities: Iterable[bytes]) -> bool:
        """Whether a URL with one of these authorities (lower case, as written) can lead to this server; a quick test."""
        unknown = set(authorities) - self._foreign
        for authority in unknown:
            if not authority or any((place.host, place.port) in _hosts(authority) for place in self._places):
                return True
        if len(self._foreign) < _MAX_FOREIGN:
            self._foreign |= unknown
        return False

    def relative(self, text: str) -> str | None:
        """What follows the base in an absolute URL that leads to this server in any spelling; None for other texts.

        The result is not always a reference: the caller parses it.  It begins with a slash if only the letter case of the path
        differs from the base, because paths have a case.
        """
        if text[:4] not in ("http", "HTTP") and text[:4].lower() != "http":
            return None
        place = _place(text) if len(text) < _MAX_CACHED else _place.__wrapped__(text)
        if place is None:
            return None
        for own in self._places:
            size = len(own.segments)
            if (place.host, place.port) == (own.host, own.port) and _lower(place.segments[:size]) == _lower(own.segments):
                slash = "" if place.segments[:size] == own.segments else "/"
                return slash + "/".join(place.segments[size:]) + place.rest
        return None


@functools.lru_cache(64)
def server_base(base: str, aliases: tuple[str, ...] = ()) -> ServerBase:
    """The recognizer of this base URL."""
    return ServerBase(base, aliases)


@functools.lru_cache(1024)
def _hosts(authority: bytes) -> frozenset[tuple[str, str]]:
    """Host and port of a URL with this authority, for both schemes."""
    found = (_place(f"{scheme}://{authority.decode()}/") for scheme in _DEFAULT_PORTS)
    return frozenset((place.host, place.port) for place in found if place is not None)


@functools.lru_cache(4096)  # most URLs in resources are the same few systems and profiles
def _place(text: str) -> _Place | None:
    match = _URL.fullmatch(text.strip().replace("\\", "/"))
    if match is None:
        return None
    scheme, authority, path, rest = match.groups()
    host, port = _host_and_port(_decoded(authority).rpartition("@")[2].lower())
    return _Place(host, "" if port == _DEFAULT_PORTS[scheme.lower()] else port, _segments(_decoded(path)), rest)


def _decoded(text: str) -> str:
    for _ in range(_MAX_DECODINGS):
        if "%" not in text:
            break
        text = unquote(text).replace("\\", "/")
    return text


def _segments(path: str) -> tuple[str, ...]:
    """The path without empty segments and with dot segments resolved."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return tuple(segments)


def _host_and_port(authority: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    return _canonical_host(host.rstrip(".")), port.lstrip("0") if port.isdecimal() else port


def _canonical_host(host: str) -> str:
    """One name for each host: IP addresses in their usual form, and one name for this machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]")) if ":" in host else ipaddress.ip_address(socket.inet_aton(host))
    except (ValueError, OSError):
        return "localhost" if host == "localhost" or host.endswith(".localhost") else host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return "localhost" if address.is_loopback or address.is_unspecified else str(address)


def _lower(segments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(segment.lower() for segment in segments)
