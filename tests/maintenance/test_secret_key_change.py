"""The secret key is replaced without an outage and without loss; if it is lost, the key set is served all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from joserfc.jwk import ECKey

from fhir_server.clock import MAX_INSTANT
from fhir_server.interactions import subscription_records
from fhir_server.interactions.subscription_records import Subscription
from fhir_server.linking import token_encryption
from fhir_server.maintenance.reseal import SEALED
from fhir_server.smart.accounts import identity_providers, second_factor, second_factor_pending, users
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.core import key_check, signing_keys
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import InvalidToken, seal, unseal
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.store import open_store
from tests.maintenance.operator import STORES, Operator, new_operator
from tests.served import KEY, NOON, micros

NEW = "a new key that is long enough for tests of this server"
ISSUER = "https://id.example"
T = TypeVar("T")


@pytest.fixture(params=STORES)
def operator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    operator = new_operator(str(request.param), tmp_path, monkeypatch)
    operator.must("create-store")
    return operator


class Store:
    """The store of an operator, with a context for each key."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.store = self.run(self._opened(url))

    async def _opened(self, url: str) -> Any:
        store = open_store(url)
        await store.prepare()
        return store

    def run(self, job: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await job

        return self.runner.run(awaited())

    def smart(self, key: str, former_key: str = "") -> SmartContext:
        async def no_records(*_: Any) -> tuple[()]:
            return ()

        smart = SmartContext(self.store, "https://us.example", "https://us.example/fhir", lambda: micros(NOON), no_records, mode="test")
        return replace(smart, key=key, former_key=former_key)

    def close(self) -> None:
        self.run(self.store.close())
        self.runner.close()


@pytest.fixture
def store(operator: Operator) -> Iterator[Store]:
    opened = Store(operator.url)
    yield opened
    opened.close()


SEED = b"12345678901234567890"
HEADERS = b'["Authorization: secret of an endpoint"]'


def fill(store: Store, key: str) -> None:
    """Store a secret of each kind."""
    smart = store.smart(key)

    async def job() -> None:
        await identity_providers.add(smart, Provider(ISSUER, "Id", "us", "client_secret"), "provider secret")
        user = await users.create(store.store, "nurse", "A-long-pass-2026", "clinician")
        await second_factor.enroll(smart, user, SEED)
        await second_factor_pending.start(smart, user, "/", 0, second_factor.encrypt_seed(smart, SEED))
        for kind in ("link-tokens", "link-person"):
            await store.store.key_values.put(kind, "x", await token_encryption.encrypt(smart, b"tokens"), MAX_INSTANT)
        grant = TokenGrant("client", "system/*.rs", "family")
        subscription = Subscription("owner", 0, grant, "{}", seal(smart, subscription_records.SEALED.purpose, HEADERS), 1, 0, 0)
        await store.store.key_values.put(subscription_records.KIND, "owner/x", msgspec.json.encode(subscription), MAX_INSTANT)

    store.run(job())


def opened(store: Store, smart: SmartContext) -> tuple[Any, ...]:
    """Every secret, as this key opens it."""

    async def job() -> tuple[Any, ...]:
        provider = await identity_providers.find(store.store, (await identity_providers.list_all(store.store))[0].id)
        user = await users.find(store.store, "nurse")
        assert provider is not None and user is not None
        factor = await second_factor.find_factor(smart, user)
        text = await store.store.key_values.get(subscription_records.KIND, "owner/x", 0)
        assert text is not None
        subscription = msgspec.json.decode(text, type=Subscription)
        sealed = [await store.store.key_values.get(kind, "x", 0) for kind in ("link-tokens", "link-person")]
        assert factor is not None
        keys = [(await signing_keys.current_key(smart, alg))[0] for alg in signing_keys.ALGORITHMS]
        return (
            identity_providers.client_secret(smart, provider),
            second_factor.decrypt_seed(smart, factor.seed),
            [await token_encryption.decrypt(smart, each) for each in sealed if each is not None],
            keys,
            unseal(smart, subscription_records.SEALED.purpose, subscription.headers),
        )

    return store.run(job())


def published(store: Store, smart: SmartContext) -> list[str]:
    return sorted(key["kid"] for key in store.run(signing_keys.jwks(smart))["keys"])


def test_a_stolen_key_is_not_published_after_a_rotation_that_says_so(
    operator: Operator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    smart, same = store.smart(KEY), signing_keys._generate
    monkeypatch.setattr(signing_keys, "_generate", lambda alg: ECKey.generate_key("P-256") if alg == "ES256" else same(alg))

    def kids() -> set[str]:
        return {key["kid"] for use in (signing_keys.TOKENS, signing_keys.CARDS) for key in store.run(signing_keys.jwks(smart, use))["keys"]}

    before = kids()
    operator.must("keys", "rotate")
    assert len(before) == 3 and before < kids() and len(kids()) == 6
    operator.must("keys", "rotate", "--unpublish", "--alg", "ES256")
    assert len(kids()) == 5 and len(store.run(signing_keys.jwks(smart, signing_keys.CARDS))["keys"]) == 1
    operator.must("keys", "rotate", "--unpublish")
    assert len(kids()) == 3 and not kids() & before


def test_every_kind_of_sealed_record_is_filled_in_these_tests(store: Store) -> None:
    fill(store, KEY)
    for sealed in SEALED:
        assert store.run(store.store.key_values.list_all(sealed.kind, 0)), sealed.kind


def test_reseal_keeps_every_secret_under_the_new_key_alone(operator: Operator, store: Store) -> None:
    fill(store, KEY)
    before, kids = opened(store, store.smart(KEY)), published(store, store.smart(KEY))
    shown = operator.must("keys", "reseal", SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY)
    assert shown.startswith("9 secrets were encrypted"), shown
    assert opened(store, store.smart(NEW)) == before and published(store, store.smart(NEW)) == kids
    assert operator.must("keys", "reseal", SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY).startswith("0 secrets")
    assert "is the key of this store" in operator.sentences(SECRET_KEY=NEW)["key"]
    assert "PROBLEM" in operator.sentences()["key"]
    with pytest.raises((LookupError, InvalidToken)):
        opened(store, store.smart(KEY))


def test_servers_with_both_keys_work_before_and_after_reseal(operator: Operator, store: Store) -> None:
    fill(store, KEY)
    first, second = store.smart(KEY, former_key=NEW), store.smart(NEW, former_key=KEY)
    before = opened(store, store.smart(KEY))
    for smart in (first, second):
        store.run(key_check.require_key(smart))
        assert opened(store, smart) == before
    assert "former key" in operator.sentences(SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY)["key"]
    operator.must("keys", "reseal", SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY)
    for smart in (first, second):
        store.run(key_check.require_key(smart))
        assert opened(store, smart) == before


def test_key_set_is_served_after_a_new_key_and_rotation(operator: Operator, store: Store) -> None:
    kids = published(store, store.smart(KEY))
    assert "another FHIR_SERVER_SECRET_KEY" in operator.run("keys", "rotate", SECRET_KEY=NEW).output
    operator.must("keys", "rotate", SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY)
    after = published(store, store.smart(NEW))
    assert set(kids) < set(after) and len(after) == 4  # the retired keys too: tokens that they signed are still valid


def test_retired_key_of_an_earlier_version_is_left_out(store: Store) -> None:
    """Such a key has no public part beside the encrypted one."""
    for name, text in store.run(store.store.key_values.list_all("signing-key", 0)):
        older = text.replace(b'"public":', b'"former":')
        assert store.run(store.store.key_values.replace_value("signing-key", name, text, older))
    assert published(store, store.smart(NEW)) == []
    assert len(published(store, store.smart(KEY))) == 2
    store.run(signing_keys.prepare(store.smart(KEY)))
    assert len(published(store, store.smart(NEW))) == 2


def test_unreadable_secrets_stop_reseal_unless_the_key_is_lost(operator: Operator, store: Store) -> None:
    fill(store, KEY)
    values = [store.run(store.store.key_values.list_all(sealed.kind, 0)) for sealed in SEALED]
    assert "another FHIR_SERVER_SECRET_KEY" in operator.run("keys", "reseal", SECRET_KEY=NEW).output
    operator.must("audit", "restart", "--reason", "The key is lost.", SECRET_KEY=NEW)
    shown = operator.run("keys", "reseal", SECRET_KEY=NEW)
    assert shown.exit_code == 1 and "Nothing was changed" in shown.output
    assert [store.run(store.store.key_values.list_all(sealed.kind, 0)) for sealed in SEALED] == values
    shown = operator.run("keys", "reseal", "--former-key-lost", SECRET_KEY=NEW)
    assert shown.exit_code == 0 and "9 could not be opened" in shown.output
    assert "is the key of this store" in operator.sentences(SECRET_KEY=NEW)["key"]
    smart = store.smart(NEW)
    store.run(key_check.require_key(smart))
    assert all(store.run(signing_keys.current_key(smart, alg)) for alg in signing_keys.ALGORITHMS)
    user = store.run(users.find(store.store, "nurse"))
    assert user is not None and store.run(second_factor.find_factor(smart, user)) is not None, "the second factor stays required"


def test_secrets_stored_without_a_key_are_encrypted(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'plain.sqlite'}"
    plain = Operator(url)
    del plain.settings["SECRET_KEY"]
    plain.must("create-store")
    store = Store(url)
    fill(store, "")
    before = opened(store, store.smart(""))
    with pytest.raises(ValueError, match="FHIR_SERVER_SECRET_KEY is not the key"):
        store.run(key_check.require_key(store.smart(NEW)))
    plain.must("audit", "restart", "--reason", "From a trial to production.", SECRET_KEY=NEW)
    plain.must("keys", "reseal", SECRET_KEY=NEW)
    assert opened(store, store.smart(NEW)) == before
    assert b"BEGIN" not in repr(store.run(store.store.key_values.list_all("signing-key", 0))).encode()
    store.close()


def test_record_changed_during_reseal_keeps_the_change(operator: Operator, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process refreshes tokens between reading and writing."""
    fill(store, KEY)
    kind = type(store.store.key_values)
    right = kind.replace_value
    changed: list[str] = []

    async def late(self: Any, kind: str, key: str, old: bytes, new: bytes) -> bool:
        if kind == "link-tokens" and not changed:
            changed.append(key)
            refreshed = await token_encryption.encrypt(store.smart(KEY), b"refreshed")
            await self.put(kind, key, refreshed, MAX_INSTANT)
        return await right(self, kind, key, old, new)

    monkeypatch.setattr(kind, "replace_value", late)
    operator.must("keys", "reseal", SECRET_KEY=NEW, FORMER_SECRET_KEY=KEY)
    sealed = store.run(store.store.key_values.get("link-tokens", "x", 0))
    assert changed and sealed is not None
    assert store.run(token_encryption.decrypt(store.smart(NEW), sealed)) == b"refreshed"
