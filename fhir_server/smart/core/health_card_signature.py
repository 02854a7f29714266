"""Signs health cards: JSON Web Signatures with ES256 over a compressed payload.

https://hl7.org/fhir/uv/smart-health-cards-and-links/cards-specification.html, health cards are encoded as compact serialization JWS.
"""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from fhir_server import budget
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import SmartContext

PATH: Final = "/.well-known/jwks.json"
"""Where verifiers look for the keys, below the issuer."""

_ALGORITHM: Final = signing_keys.CARDS.algorithms[0]
_BYTES: Final = 32  # of each half of a signature (RFC 7518 3.4)


async def sign(smart: SmartContext, payloads: Sequence[bytes]) -> list[str]:
    """The cards with these payloads, each a compact JWS.

    The same payload and key give the same card (RFC 6979), so a card tells nothing but its payload.  Raises LookupError if
    :func:`~fhir_server.smart.core.signing_keys.prepare` has not run.
    """
    kid, key = await signing_keys.current_key(smart, _ALGORITHM)
    private = key.private_key
    if not isinstance(private, EllipticCurvePrivateKey):
        raise TypeError("The key of health cards is not one of an elliptic curve.")
    header = _base64url(json.dumps({"zip": "DEF", "alg": _ALGORITHM, "kid": kid}, separators=(",", ":")).encode())
    return await budget.each(lambda payload: _signed(private, f"{header}.{_base64url(_deflated(payload))}"), payloads)


def _signed(key: EllipticCurvePrivateKey, text: str) -> str:
    halves = decode_dss_signature(key.sign(text.encode(), ECDSA(SHA256(), deterministic_signing=True)))
    return f"{text}.{_base64url(b''.join([half.to_bytes(_BYTES) for half in halves]))}"


def _deflated(payload: bytes) -> bytes:
    """Raw DEFLATE (RFC 1951), without the header of zlib."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(payload) + compressor.flush()


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).decode().rstrip("=")
