"""``fhir-server keys reseal``: encrypts the secrets in the store with a new secret key, while servers run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from fhir_server.interactions import subscription_records
from fhir_server.linking import links, token_encryption
from fhir_server.smart.accounts import identity_providers, second_factor, second_factor_pending
from fhir_server.smart.core import key_check, signing_keys
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import InvalidToken, SealedRecords, derive_fernet, seal

SEALED: Final = (
    *signing_keys.SEALED, identity_providers.SEALED, second_factor.SEALED, second_factor_pending.SEALED, *links.SEALED,
    subscription_records.SEALED,
)  # fmt: skip
_FERNET: Final = b"gAAAA"  # how every value of Fernet's begins: its version and the high bytes of a time


class ResealReport(NamedTuple):
    """The numbers of secrets that were encrypted with the new key, and of those that neither key opens."""

    resealed: int
    unreadable: int


class _Secret(NamedTuple):
    """One stored secret: its record, and what is to be stored instead (None: neither key opens it)."""

    kind: str
    key: str
    old: bytes
    new: bytes | None


async def reseal(smart: SmartContext, *, is_former_lost: bool) -> ResealReport:
    """Encrypt with ``smart.key`` what ``smart.former_key`` encrypted, or what was stored without a key.

    Safe to interrupt and to repeat.  If the former key is lost (``is_former_lost``), signing keys that cannot be opened are replaced;
    other secrets stay unreadable.  Raises ValueError, with a message for the operator, without a new key, and if there are secrets that
    neither key opens although the former one is not said to be lost; then nothing is changed.
    """
    if not smart.key:
        raise ValueError("FHIR_SERVER_SECRET_KEY must be set: it is the key to encrypt with.")
    unreadable = sum([secret.new is None for secret in await _find(smart)])
    if unreadable and not is_former_lost:
        raise ValueError(
            f"{unreadable} secrets are encrypted with neither FHIR_SERVER_SECRET_KEY nor FHIR_SERVER_FORMER_SECRET_KEY. Set the former"
            " key; if it is lost, use --former-key-lost. Nothing was changed."
        )
    resealed = 0
    # A server may change a record between reading and writing it: then it is read again.  A server that has the former key alone may
    # add another one.
    while secrets := [secret for secret in await _find(smart) if secret.new is not None]:
        for secret in secrets:
            if secret.new is not None:
                resealed += await smart.store.key_values.replace_value(secret.kind, secret.key, secret.old, secret.new)
    if unreadable:
        await signing_keys.replace_unreadable(smart)
    await key_check.replace_record(smart)
    return ResealReport(resealed, unreadable)


async def _find(smart: SmartContext) -> list[_Secret]:
    """The secrets that are not encrypted with the new key."""
    own = await smart.store.key_values.get(token_encryption.KEY_KIND, "", 0)
    found: list[_Secret] = []
    for sealed in SEALED:
        former = [key for key in (smart.former_key.encode(), own or b"") if key]
        records = await smart.store.key_values.list_all(sealed.kind, smart.now())
        found += _of_kind(smart, sealed, records, former)
    return found


def _of_kind(smart: SmartContext, sealed: SealedRecords, records: Iterable[tuple[str, bytes]], former: list[bytes]) -> Iterator[_Secret]:
    for key, text in records:
        record = msgspec.json.decode(text, type=sealed.record) if sealed.record is not None else None
        value: bytes = getattr(record, sealed.member) if record is not None else text
        if not value or _open(value, sealed.purpose, [smart.key.encode()]) is not None:
            continue
        plain = _open(value, sealed.purpose, former) if value.startswith(_FERNET) else value
        if plain is None:
            yield _Secret(sealed.kind, key, text, None)
            continue
        new = seal(smart, sealed.purpose, plain)
        yield _Secret(sealed.kind, key, text, new if record is None else _with(record, sealed.member, new))


def _with(record: msgspec.Struct, member: str, value: bytes) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(record, **{member: value}))


def _open(value: bytes, purpose: str, keys: list[bytes]) -> bytes | None:
    for key in keys:
        try:
            return derive_fernet(key, purpose).decrypt(value)
        except InvalidToken:
            continue
    return None
