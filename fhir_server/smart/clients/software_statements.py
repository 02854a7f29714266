"""Publishers whose software statements (RFC 7591 2.3) the operator trusts, and the verification of statements."""

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
    """A trusted publisher: ``issuer`` is the ``iss`` of its statements, ``jwks`` its public keys."""

    issuer: str
    jwks: dict[str, Any]


class UnapprovedStatementError(Exception):
    """The publisher of the statement is not trusted."""


class InvalidStatementError(Exception):
    """The statement has an invalid signature, has expired or is not yet valid."""


_publishers = Register("trusted-publisher", Publisher)


async def list_all(store: Store) -> tuple[Publisher, ...]:
    """All trusted publishers."""
    return await _publishers.list_all(store)


async def trust(store: Store, publisher: Publisher) -> None:
    """Trust a publisher.  Raises ValueError, with a message for the operator, for a missing name or unusable keys."""
    try:
        has_keys = any(True for _ in KeySet.import_key_set(publisher.jwks))  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError):
        has_keys = False
    if not has_keys or not publisher.issuer:
        raise ValueError("A publisher needs a name and a JWK Set with at least one public key.")
    await _publishers.save(store, publisher.issuer, publisher)


async def distrust(store: Store, issuer: str) -> bool:
    """Stop trusting a publisher.  False if it was not trusted.  Apps with its statements stay registered."""
    return await _publishers.remove(store, issuer)


async def verify(store: Store, statement: str, now: int) -> dict[str, Any]:
    """Verify a software statement and return its claims.  Raises UnapprovedStatementError, InvalidStatementError."""
    issuer = _issuer(statement)
    publisher = await _publishers.find(store, issuer) if issuer else None
    if publisher is None:
        raise UnapprovedStatementError
    try:
        keys = KeySet.import_key_set(publisher.jwks)  # type: ignore[arg-type]
        claims = jwt.decode(statement, keys, algorithms=_ALGORITHMS).claims
    except (JoseError, ValueError, TypeError, KeyError):
        raise InvalidStatementError from None
    if not _is_current(claims, now // SECOND):
        raise InvalidStatementError
    return dict(claims)


def _issuer(statement: str) -> str:
    """The issuer that a statement names, not yet verified."""
    try:
        claims = msgspec.json.decode(jws.extract_compact(statement.encode()).payload)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidStatementError from None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""


def _is_current(claims: dict[str, Any], now: int) -> bool:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    return all(type(at) in (int, float) for at in times.values()) and now < times.get("exp", now + 1) and times.get("nbf", now) <= now
