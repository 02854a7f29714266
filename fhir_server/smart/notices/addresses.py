"""E-mail addresses as people type them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_LENGTH: Final = 254  # RFC 5321 4.5.3.1.3, less the angle brackets
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+")


def parse(typed: str) -> str:
    """Return a typed address as it is stored: its domain in lower case and in ASCII (RFC 5891).

    Raises ValueError, with a message for the person, if it is none.
    """
    local, at, domain = unicodedata.normalize("NFKC", typed).strip().rpartition("@")
    try:
        address = f"{local}{at}{domain.encode('idna').decode().lower()}"
    except UnicodeError:
        address = ""
    if len(address) > MAX_LENGTH or not _ADDRESS.fullmatch(address):
        raise ValueError("Enter an e-mail address, such as name@example.org.")
    return address


def comparable(address: str) -> str:
    """The form in which addresses are compared: hardly any mail server tells capitals from small letters."""
    return address.casefold()


def masked(address: str) -> str:
    """An address as pages show it: its owner knows it again, and nobody who looks over the shoulder learns it."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}***{at}{domain}"
