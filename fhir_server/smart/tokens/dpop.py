"""Proof of possession (DPoP, RFC 9449): a token that is bound to a key is of use only to who can sign with the key.

A proof is a JWT for one request: its method, its URL, for a use of a token the token, and a nonce of this server, so that none can be
prepared in advance.  Each ``jti`` is taken once, by one atomic step, for as long as the nonce is good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key

from fhir_server.smart.clients.jwks_cache import is_strong_key
from fhir_server.smart.core.context import MINUTE, SECOND, SmartContext, digest
from fhir_server.smart.core.encryption import derive_key
from fhir_server.smart.core.token_grants import ACCESS, find

ALGORITHMS: Final = {"ES256": "EC", "ES384": "EC", "RS256": "RSA", "PS256": "RSA", "EdDSA": "OKP"}
NONCE_LIFE: Final = 5 * MINUTE  # then a new one is given out; the last one is still taken
AHEAD: Final = 30 * SECOND  # that a client's clock may be
_MAX_AGE: Final = 2 * NONCE_LIFE
_KIND: Final = "dpop-proof"
_PURPOSE: Final = "fhir-server DPoP nonces"
_FALLBACK: Final = secrets.token_bytes(32)  # of a process without a secret key (demo, test): its clients ask again at another one
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")
_PORTS: Final = {"http": 80, "https": 443}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})

ErrorCode = Literal["invalid_dpop_proof", "use_dpop_nonce"]


class ProofError(Exception):
    """The proof is not valid for this request (``invalid_dpop_proof``), or needs a nonce of this server (``use_dpop_nonce``)."""

    def __init__(self, error: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.error: ErrorCode = error


@dataclass(frozen=True, slots=True)
class ProvenRequest:
    """The request that a proof is for: its method, its path as it was sent, and the access token with it ("": none)."""

    method: str
    path: str
    token: str = ""


def nonce(smart: SmartContext) -> str:
    """The nonce for the next proofs, the same for all clients."""
    return _nonce(smart, smart.now() // NONCE_LIFE)


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified proof: the thumbprint (RFC 7638) of its key, and the name under which its one use is stored."""

    jkt: str
    use: str


def verify(smart: SmartContext, proof: str, request: ProvenRequest) -> Proof:
    """Verify a proof of this request, which :func:`take` then uses up.  Raises ProofError."""
    key, claims = _opened(proof)
    now = smart.now()
    jti, issued = claims.get("jti"), claims.get("iat")
    if claims.get("htm") != request.method or not _is_url(claims.get("htu"), smart.origin, request.path):
        raise ProofError("invalid_dpop_proof", "The proof is for another request.")
    if not isinstance(issued, int | float) or isinstance(issued, bool) or not isinstance(jti, str) or not 0 < len(jti) <= 512:
        raise ProofError("invalid_dpop_proof", "The proof needs jti and iat.")
    if not now - _MAX_AGE <= issued * SECOND <= now + AHEAD:
        raise ProofError("invalid_dpop_proof", "The proof is too old, or its clock is ahead.")
    if request.token and claims.get("ath") != _encoded(hashlib.sha256(request.token.encode()).digest()):
        raise ProofError("invalid_dpop_proof", "The proof is for another access token.")
    if not _is_current(smart, claims.get("nonce")):
        raise ProofError("use_dpop_nonce", "The proof needs the nonce of the header DPoP-Nonce.")
    thumbprint = key.thumbprint()
    return Proof(thumbprint, digest(f"{thumbprint} {jti}"))


async def take(smart: SmartContext, use: str) -> bool:
    """Use a proof up, by its :attr:`Proof.use`.  True for exactly one caller."""
    return await smart.store.key_values.put_if_absent(_KIND, use, b"", smart.now() + _MAX_AGE + AHEAD)


async def prove_token(smart: SmartContext, proof: str, request: ProvenRequest) -> str:
    """The thumbprint of the key that a request with an access token proves; "" if the token is not bound to it.

    Raises ProofError.  Only a proof for a valid token is stored: nobody else can fill the store.
    """
    verified = verify(smart, proof, request)
    grant = await find(smart.store, ACCESS, digest(request.token), smart.now())
    if grant is None or grant.jkt != verified.jkt:
        return ""
    if not await take(smart, verified.use):
        raise ProofError("invalid_dpop_proof", "The proof was used before.")
    return verified.jkt


def _opened(proof: str) -> tuple[Key, dict[str, Any]]:
    """The public key in the proof's header, and the claims that it signed.  Raises ProofError."""
    try:
        header = jws.extract_compact(proof.encode()).headers()
        alg, jwk = str(header.get("alg")), header.get("jwk")
        if header.get("typ") != "dpop+jwt" or not isinstance(jwk, dict) or _PRIVATE & set(jwk) or jwk.get("kty") != ALGORITHMS.get(alg):
            raise ProofError("invalid_dpop_proof", "The proof's header is not that of RFC 9449.")
        key = import_key({name: jwk[name] for name in _PUBLIC if name in jwk})
        if not is_strong_key(key):
            raise ProofError("invalid_dpop_proof", "The proof's key is too short.")
        return key, jwt.decode(proof, key, algorithms=[alg]).claims
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProofError("invalid_dpop_proof", "The proof cannot be verified.") from None


def _is_url(url: object, origin: str, path: str) -> bool:
    """Whether a URL without query and fragment is that of this request, in any spelling that RFC 3986 makes equal (6.2.2, 6.2.3)."""
    if not isinstance(url, str):
        return False
    try:
        parts, own = urlsplit(url), urlsplit(origin)
        same_host = (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)) == (
            own.scheme,
            own.hostname,
            own.port or _PORTS.get(own.scheme),
        )
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return same_host and plain and unquote(parts.path) == unquote(path)


def _is_current(smart: SmartContext, given: object) -> bool:
    window = smart.now() // NONCE_LIFE
    good = [_nonce(smart, window), _nonce(smart, window - 1)]
    return isinstance(given, str) and any(hmac.compare_digest(given.encode(), one.encode()) for one in good)


def _nonce(smart: SmartContext, window: int) -> str:
    key = derive_key(smart.key.encode(), _PURPOSE) if smart.key else _FALLBACK
    return _encoded(hmac.digest(key, b"%d" % window, "sha256")[:16])


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
