"""What an authorization request may store before anybody has signed in: anyone can send one, by a browser or pushed.

The lengths are above what clients and brokers use.  Together with the rate of requests, the bytes that one network address may
park are limited.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from authlib.oauth2.rfc6749 import InvalidRequestError

from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.core.rate_limits import VolumeLimit

PARAMETERS: Final = frozenset(
    {
        *("response_type", "client_id", "redirect_uri", "scope", "state", "aud", "resource", "launch"),
        *("code_challenge", "code_challenge_method", "nonce", "prompt", "max_age", "response_mode", "login_hint", "dpop_jkt"),
    }
)
_LENGTHS: Final = {"client_id": 100, "redirect_uri": 2_000, "scope": 8_000, "state": 4_000, "nonce": 1_000, "id_token_hint": 8_000}
_OTHERS: Final = 500
# An error cannot be returned to the client with one of these: where to, and as an answer to what?
_UNANSWERABLE: Final = ("client_id", "redirect_uri", "state")
BYTES_PER_ADDRESS: Final = 1024 * 1024  # in WINDOW; some 1,200 requests of the usual size
WINDOW: Final = 10 * MINUTE


def check_lengths(pairs: Iterable[tuple[str, str]], redirect_uri: str, state: str) -> None:
    """Raise InvalidRequestError if a parameter is too long, for a validated request.

    The error goes to ``redirect_uri`` with ``state``, unless it is about one of these.
    """
    for name, value in pairs:
        most = _LENGTHS.get(name, _OTHERS)
        if len(value.encode()) > most:
            target = {} if name in _UNANSWERABLE else {"redirect_uri": redirect_uri, "state": state or None}
            raise InvalidRequestError(f"The parameter {name} may have {most} bytes.", **target)


def parked_bytes() -> VolumeLimit:
    """The limit of bytes that an address may park in requests."""
    return VolumeLimit("parked authorization requests", BYTES_PER_ADDRESS, WINDOW)
