"""An independent verifier of SMART Health Cards: it reads cards as a border officer's app does, and shares no code with the server."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

Json = dict[str, Any]


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(key: Json) -> str:
    """The JWK thumbprint (RFC 7638)."""
    members = json.dumps({name: key[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).decode().rstrip("=")


def verified(card: str, jwks: Json) -> Json:
    """The payload.  Raises AssertionError or InvalidSignature for a card that is not one, or not signed with one of the keys."""
    head, payload, signature = card.split(".")
    header = json.loads(decoded(head))
    assert header["alg"] == "ES256" and header["zip"] == "DEF", header
    [key] = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256") and "d" not in key
    assert key["kid"] == thumbprint(key)
    x, y = (int.from_bytes(decoded(key[name])) for name in ("x", "y"))
    raw = decoded(signature)
    assert len(raw) == 64
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key().verify(der, f"{head}.{payload}".encode(), ECDSA(SHA256()))
    content: Json = json.loads(zlib.decompress(decoded(payload), -15))
    return content


def is_valid(card: str, jwks: Json) -> bool:
    try:
        verified(card, jwks)
    except (InvalidSignature, AssertionError, ValueError, zlib.error):
        return False
    return True


def resources(payload: Json) -> list[Json]:
    """The resources of the Bundle of a card, the Patient first."""
    bundle = payload["vc"]["credentialSubject"]["fhirBundle"]
    return [entry["resource"] for entry in bundle["entry"]]


def from_digits(text: str) -> str:
    """The card in the text of a QR code: ``shc:/`` and two digits for each character."""
    assert text.startswith("shc:/")
    digits = text.removeprefix("shc:/")
    return "".join(chr(int(digits[at : at + 2]) + 45) for at in range(0, len(digits), 2))
