"""The keys we sign id_tokens with: made at first start, kept in the store, published as a JWK Set.

A key is retired before it goes: it stays published until the last token it signed has run out.
"""

from __future__ import annotations

from typing import Any, Final

import anyio.to_thread
import msgspec
from joserfc.jwk import ECKey, RSAKey

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.core.context import HOUR, MINUTE, SmartContext, new_secret
from fhir_server.smart.core.encryption import box

_KIND: Final = "signing-key"
_PURPOSE: Final = "fhir-server signing keys"
ALGORITHMS: Final = ("RS256", "ES384")
LINGER: Final = HOUR + 5 * MINUTE  # the life of an id_token, and what clocks may differ


class SigningKey(msgspec.Struct, frozen=True):
    """A key pair; ``pem`` is sealed where the settings hold a key."""

    kid: str
    alg: str
    pem: bytes
    created: int
    retired: int | None = None


async def prepare(smart: SmartContext) -> None:
    """Make the keys that are missing; safe beside other processes doing the same."""
    kept = (await _stored(smart)).values()
    for alg in ALGORITHMS:
        if not any(key.alg == alg and key.retired is None for key in kept):
            await _add(smart, alg)


async def rotate(smart: SmartContext, alg: str) -> None:
    """Retire the current key of this algorithm and make its successor; verifiers find the old one for as long as they need it.

    Raises ValueError, worded for the operator, where the new key would lie open in the store of a production server.
    """
    if smart.mode == "production" and not smart.key:
        raise ValueError("FHIR_SERVER_SECRET_KEY must be set: signing keys of a production server are kept encrypted.")
    kept = {name: key for name, key in (await _stored(smart)).items() if key.alg == alg}
    await _add(smart, alg)
    now = smart.now()
    for name, key in kept.items():
        if key.retired is None:
            old = msgspec.structs.replace(key, retired=now)
            await smart.store.key_values.put(_KIND, name, msgspec.json.encode(old), now + LINGER)


async def list_all(smart: SmartContext) -> tuple[SigningKey, ...]:
    """The keys that are published, oldest first."""
    return tuple(sorted((await _stored(smart)).values(), key=lambda key: (key.created, key.alg)))


async def jwks(smart: SmartContext) -> dict[str, Any]:
    """The public keys, current and retired, as a JWK Set (RFC 7517)."""
    return {"keys": [_public(smart, key) for key in (await _stored(smart)).values()]}


async def signer(smart: SmartContext, alg: str) -> tuple[str, RSAKey | ECKey]:
    """The ``kid`` and private key to sign with.  Raises LookupError before :func:`prepare`."""
    for key in (await _stored(smart)).values():
        if key.alg == alg and key.retired is None:
            return key.kid, _load(smart, key)
    raise LookupError(f"There is no {alg} key; prepare() makes one.")


async def _stored(smart: SmartContext) -> dict[str, SigningKey]:
    kept = await smart.store.key_values.list_all(_KIND, smart.now())
    return {name: msgspec.json.decode(text, type=SigningKey) for name, text in sorted(kept)}


async def _add(smart: SmartContext, alg: str) -> None:
    """Under the next free number, so that of several processes that make the same key one does."""
    numbers = [int(name.partition(".")[2]) for name in await _stored(smart) if name.startswith(f"{alg}.")]
    number = max(numbers, default=-1) + 1
    made = await anyio.to_thread.run_sync(_generate, alg)
    key = SigningKey(new_secret()[:16], alg, _encrypt(smart, made.as_pem(private=True)), smart.now())
    await smart.store.key_values.put_if_absent(_KIND, f"{alg}.{number}", msgspec.json.encode(key), MAX_INSTANT)


def _generate(alg: str) -> RSAKey | ECKey:
    return RSAKey.generate_key(3072) if alg.startswith("RS") else ECKey.generate_key("P-384")


def _load(smart: SmartContext, key: SigningKey) -> RSAKey | ECKey:
    pem = _decrypt(smart, key.pem)
    return RSAKey.import_key(pem) if key.alg.startswith("RS") else ECKey.import_key(pem)


def _public(smart: SmartContext, key: SigningKey) -> dict[str, Any]:
    return {**_load(smart, key).as_dict(private=False), "kid": key.kid, "alg": key.alg, "use": "sig"}


def _encrypt(smart: SmartContext, pem: bytes) -> bytes:
    return box(smart.key.encode(), _PURPOSE).encrypt(pem) if smart.key else pem


def _decrypt(smart: SmartContext, pem: bytes) -> bytes:
    return box(smart.key.encode(), _PURPOSE).decrypt(pem) if smart.key else pem
