"""The keys that sign id_tokens, client assertions and health cards: generated at first start, stored, published as JWK Sets.

A retired key stays published until the last id_token that it signed has expired.  Health cards do not expire, so a retired key of
theirs stays published for good, without its private key; their set has no keys of another use
(https://hl7.org/fhir/uv/smart-health-cards-and-links/cards-specification.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import anyio.to_thread
import msgspec
from joserfc.jwk import ECKey, RSAKey

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core.context import HOUR, MINUTE, SmartContext, new_secret
from fhir_server.smart.core.encryption import SIGNING_KEYS, InvalidToken, SealedRecords, seal, unseal

SIGNING_KEY: Final = "signing-key"
CARD_KEY: Final = "health-card-key"
RETIREMENT_PERIOD: Final = HOUR + 5 * MINUTE  # the lifetime of an id_token, plus clock skew
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384"}


class KeyUse(NamedTuple):
    """What keys are for.

    ``kind``        of their records in the store
    ``algorithms``  one current key of each (RFC 7518 3.1)
    ``retirement``  how long a retired key stays published, in microseconds; None: for good
    """

    kind: str
    algorithms: tuple[str, ...]
    retirement: int | None


TOKENS: Final = KeyUse(SIGNING_KEY, ("RS256", "ES384"), RETIREMENT_PERIOD)
CARDS: Final = KeyUse(CARD_KEY, ("ES256",), None)
ALGORITHMS: Final = (*TOKENS.algorithms, *CARDS.algorithms)
_USES: Final = {alg: use for use in (TOKENS, CARDS) for alg in use.algorithms}


class SigningKey(msgspec.Struct, frozen=True):
    """A key pair.  ``pem`` is encrypted if ``SmartContext.key`` is set, and empty if the private key is no longer kept.

    ``created`` and ``retired`` are in microseconds.

    ``public`` is the public JWK (JSON text), so that it can be published without the private key.  Keys of earlier versions lack it.
    """

    kid: str
    alg: str
    pem: bytes
    created: int
    retired: int | None = None
    public: bytes = b""


SEALED: Final = (
    SealedRecords(SIGNING_KEY, SIGNING_KEYS, SigningKey, "pem"),
    SealedRecords(CARD_KEY, SIGNING_KEYS, SigningKey, "pem"),
)


async def prepare(smart: SmartContext, uses: Sequence[KeyUse] = (TOKENS, CARDS)) -> None:
    """Generate the keys of these uses that are missing, and note the public keys of those of earlier versions.

    Several processes may do so at once.
    """
    for name, text in await smart.store.key_values.list_all(SIGNING_KEY, smart.now()):
        key = msgspec.json.decode(text, type=SigningKey)
        if not key.public and (public := _public(smart, key)):
            noted = msgspec.structs.replace(key, public=msgspec.json.encode(public))
            await smart.store.key_values.replace_value(SIGNING_KEY, name, text, msgspec.json.encode(noted))
    for alg in [alg for use in uses for alg in use.algorithms]:
        if not any(key.retired is None for key in (await _stored(smart, alg)).values()):
            await _add(smart, alg)


async def rotate(smart: SmartContext, alg: str, *, unpublish: bool = False) -> None:
    """Retire the current key of this algorithm and generate its successor.

    The old key stays published as long as its :class:`KeyUse` says; with ``unpublish`` neither it nor those before it does, so that
    nothing that they signed verifies any more.  Raises ValueError, with a message for the operator, in production
    mode without a key to encrypt with.
    """
    if smart.mode == "production" and not smart.key:
        raise ValueError("FHIR_SERVER_SECRET_KEY must be set: a production server stores its signing keys encrypted.")
    use, previous = _USES[alg], await _stored(smart, alg)
    await _add(smart, alg)
    now = smart.now()
    until = MAX_INSTANT if use.retirement is None else now + use.retirement
    for name, key in previous.items():
        if unpublish:
            await smart.store.key_values.pop(use.kind, name, now)
        elif key.retired is None:
            pem = key.pem if use.retirement is not None else b""
            retired = msgspec.structs.replace(key, retired=now, pem=pem)
            await smart.store.key_values.put(use.kind, name, msgspec.json.encode(retired), until)


async def replace_unreadable(smart: SmartContext) -> None:
    """Rotate the keys of the algorithms whose current key is encrypted with a key that the settings do not have."""
    for alg in _USES:
        try:
            await current_key(smart, alg)
        except (InvalidToken, LookupError):
            await rotate(smart, alg)


async def list_all(smart: SmartContext) -> tuple[SigningKey, ...]:
    """The published keys of all uses, oldest first."""
    keys = [key for use in (TOKENS, CARDS) for key in (await _of_use(smart, use)).values()]
    return tuple(sorted(keys, key=lambda key: (key.created, key.alg)))


async def jwks(smart: SmartContext, use: KeyUse = TOKENS) -> dict[str, Any]:
    """The public keys of a use, current and retired, as a JWK Set (RFC 7517).

    A key of an earlier version that is encrypted with another secret key is left out: nobody can say what its public key is.
    """
    published = [_public(smart, key) for key in (await _of_use(smart, use)).values()]
    return {"keys": [key for key in published if key is not None]}


async def current_key(smart: SmartContext, alg: str) -> tuple[str, RSAKey | ECKey]:
    """The ``kid`` and private key to sign with.  Raises LookupError if :func:`prepare` has not run."""
    for key in (await _stored(smart, alg)).values():
        if key.retired is None:
            return key.kid, _load(smart, key)
    raise LookupError(f"There is no {alg} key; call prepare() first.")


async def _of_use(smart: SmartContext, use: KeyUse) -> dict[str, SigningKey]:
    rows = await smart.store.key_values.list_all(use.kind, smart.now())
    return {name: msgspec.json.decode(text, type=SigningKey) for name, text in sorted(rows)}


async def _stored(smart: SmartContext, alg: str) -> dict[str, SigningKey]:
    return {name: key for name, key in (await _of_use(smart, _USES[alg])).items() if key.alg == alg}


async def _add(smart: SmartContext, alg: str) -> None:
    """Store a new key under the next free number.  If several processes do so at once, one succeeds."""
    numbers = [int(name.partition(".")[2]) for name in await _stored(smart, alg)]
    number = max(numbers, default=-1) + 1
    pair = await anyio.to_thread.run_sync(_generate, alg)
    sealed = seal(smart, SIGNING_KEYS, pair.as_pem(private=True))
    kid = pair.thumbprint() if _USES[alg] is CARDS else new_secret()[:16]  # of a card: as the guide demands (RFC 7638)
    key = SigningKey(kid, alg, sealed, smart.now(), public=msgspec.json.encode(pair.as_dict(private=False)))
    await smart.store.key_values.put_if_absent(_USES[alg].kind, f"{alg}.{number}", msgspec.json.encode(key), MAX_INSTANT)


def _generate(alg: str) -> RSAKey | ECKey:
    return RSAKey.generate_key(3072) if alg.startswith("RS") else ECKey.generate_key(_CURVES[alg])


def _load(smart: SmartContext, key: SigningKey) -> RSAKey | ECKey:
    return _import(unseal(smart, SIGNING_KEYS, key.pem), key.alg)


@lru_cache(maxsize=8)
def _import(pem: bytes, alg: str) -> RSAKey | ECKey:
    """Parsed once per process: OpenSSL checks an RSA key for a tenth of a second, in which the server could answer nobody."""
    return RSAKey.import_key(pem) if alg.startswith("RS") else ECKey.import_key(pem)


def _public(smart: SmartContext, key: SigningKey) -> dict[str, Any] | None:
    try:
        public = msgspec.json.decode(key.public) if key.public else _load(smart, key).as_dict(private=False)
    except (InvalidToken, ValueError):
        return None
    return {**public, "kid": key.kid, "alg": key.alg, "use": "sig"}
