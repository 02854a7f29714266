"""Publishers whose software statements the operator believes (RFC 7591 2.3): who vouches for apps, and by which keys."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fhir_server.smart.core.context import SECOND
from fhir_server.smart.core.registry import Register
from fhir_server.store import Store

_ALGORITHMS: Final = ["RS256", "RS384", "ES256", "ES384"]


class Publisher(msgspec.Struct, frozen=True):
    """``issuer`` is the ``iss`` of its statements, ``jwks`` its public keys."""

    issuer: str
    jwks: dict[str, Any]


class UnapprovedStatementError(Exception):
    """A statement by nobody whom the operator trusts."""


class InvalidStatementError(Exception):
    """A statement that is not what its publisher signed, or is out of date."""


_publishers = Register("trusted-publisher", Publisher)


async def list_all(store: Store) -> tuple[Publisher, ...]:
    return await _publishers.list_all(store)


async def trust(store: Store, publisher: Publisher) -> None:
    """Raises ValueError, worded for the operator, for keys that could verify nothing."""
    try:
        sound = any(True for _ in KeySet.import_key_set(publisher.jwks))  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError):
        sound = False
    if not sound or not publisher.issuer:
        raise ValueError("A publisher needs a name and a JWK Set with at least one public key.")
    await _publishers.save(store, publisher.issuer, publisher)


async def distrust(store: Store, issuer: str) -> bool:
    """Believe this publisher no longer; False if it was not believed before.  Apps it vouched for stay registered."""
    return await _publishers.remove(store, issuer)


async def verify(store: Store, statement: str, now: int) -> dict[str, Any]:
    """The claims of a software statement.  Raises Unapproved, Unsound."""
    issuer = _issuer(statement)
    publisher = await _publishers.find(store, issuer) if issuer else None
    if publisher is None:
        raise UnapprovedStatementError
    try:
        keys = KeySet.import_key_set(publisher.jwks)  # type: ignore[arg-type]
        claims = jwt.decode(statement, keys, algorithms=_ALGORITHMS).claims
    except (JoseError, ValueError, TypeError, KeyError):
        raise InvalidStatementError from None
    if not _current(claims, now // SECOND):
        raise InvalidStatementError
    return dict(claims)


def _issuer(statement: str) -> str:
    """Who the statement says it is by; nothing of it is believed for that."""
    try:
        claims = msgspec.json.decode(jws.extract_compact(statement.encode()).payload)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidStatementError from None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""


def _current(claims: dict[str, Any], now: int) -> bool:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    return all(type(at) in (int, float) for at in times.values()) and now < times.get("exp", now + 1) and times.get("nbf", now) <= now
