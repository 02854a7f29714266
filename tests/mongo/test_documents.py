"""Resources are also stored as native documents.  What MongoDB cannot store is rejected with a clear error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from bson.decimal128 import Decimal128
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.search.filters import Has, TextIs, TokenIs
from fhir_server.store import Store
from fhir_server.store.mongodb import MongoStore
from fhir_server.store.mongodb.documents import encode_native
from fhir_server.store.mongodb.transaction import MongoTransaction
from tests.mongo.shared_mongod import emptied_url
from tests.served import Served
from tests.store.samples import ANYONE, OBS, date, found, put, record, string


def ran(scenario: Callable[[MongoStore, str], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        url = emptied_url()
        store = MongoStore(url)
        try:
            return await scenario(store, url)
        finally:
            await store.close()

    return asyncio.run(whole())


def test_resource_is_queryable_natively_and_returned_byte_for_byte() -> None:
    body = '{"resourceType":"Observation","valueQuantity":{"value":1.50,"high": 2e3,"n":7},"note":[{"text":"é \\u00e9"}]}'.encode()

    async def scenario(store: Store, url: str) -> None:
        await put(store, record("a", body=body))
        with MongoClient[dict[str, Any]](url) as client:
            resources = client.get_default_database()["resources"]
            kept = resources.find_one({"resource.note.text": "é é", "resource.valueQuantity.value": {"$gt": Decimal128("1.4")}})
            assert kept is not None and kept["_id"] == f"{OBS}/a"
            assert str(kept["resource"]["valueQuantity"]["value"]) == "1.50" and kept["resource"]["valueQuantity"]["n"] == 7
        async with store.snapshot() as snapshot:
            assert (await snapshot.read(OBS, "a", ANYONE)).body == body  # type: ignore[union-attr]
            assert (await snapshot.versions(OBS, "a", ANYONE))[0].body == body

    ran(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b'{"whole":123456789012345678901234567890}',
        b'{"deep":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"half":"\\ud800"}',
        b"[1]",
        b"not JSON",
        b"",
    ],
)
def test_json_without_native_form_is_stored_as_text_only(body: bytes) -> None:
    async def scenario(store: Store, _: str) -> None:
        await put(store, record("a", body=body))
        async with store.snapshot() as snapshot:
            assert (await snapshot.read(OBS, "a", ANYONE)).body == body  # type: ignore[union-attr]

    assert encode_native(body) is None
    ran(scenario)


def test_decimal_with_too_many_digits_is_stored_as_text() -> None:
    held = encode_native(b'{"short":0.10,"long":0.1234567890123456789012345678901234567890,"vast":1E+9999}')
    assert held is not None
    assert (str(held["short"]), held["long"], held["vast"]) == ("0.10", "0.1234567890123456789012345678901234567890", "1E+9999")


def test_only_resources_over_the_document_limit_are_refused() -> None:
    async def scenario(store: Store, _: str) -> None:
        fits = b'{"data":"' + b"x" * (15 * 1024 * 1024) + b'"}'
        await put(store, record("a", body=fits))
        async with store.snapshot() as snapshot:
            assert (await snapshot.read(OBS, "a", ANYONE)).body == fits  # type: ignore[union-attr]
        with pytest.raises(Problem, match="16 MB") as refused:
            await put(store, record("b", body=fits + b" " * 2 * 1024 * 1024))
        assert (refused.value.kind, refused.value.status) == ("too_large", 413)

    ran(scenario)


def test_oversized_resource_returns_413_alone_and_in_transaction() -> None:
    def letter(id: str, size: int) -> dict[str, Any]:
        content = [{"attachment": {"contentType": "text/plain", "data": "QUFB" * (size // 4)}}]
        return {"resourceType": "DocumentReference", "id": id, "status": "current", "content": content}

    def transaction(*letters: dict[str, Any]) -> dict[str, Any]:
        entries = [{"resource": one, "request": {"method": "PUT", "url": f"DocumentReference/{one['id']}"}} for one in letters]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    served = Served(emptied_url(), seeds=False, max_resource_bytes=32 * 1024 * 1024)
    token, vast = served.token(), 17 * 1024 * 1024
    try:
        assert served.request(token, "PUT", "DocumentReference/a", body=letter("a", vast // 2)).status == 201
        for method, path, body in (
            ("PUT", "DocumentReference/b", letter("b", vast)),
            ("POST", "", transaction(letter("c", 400), letter("b", vast))),
        ):
            refused = served.request(token, method, path, body=body)
            assert refused.status == 413 and refused.json["resourceType"] == "OperationOutcome"
            assert (refused.json["issue"][0]["code"], "16 MB" in refused.json["issue"][0]["diagnostics"]) == ("too-long", True)
        assert [served.get(token, f"DocumentReference/{id}").status for id in "abc"] == [200, 404, 404]
    finally:
        served.close()


def test_transaction_larger_than_the_cache_returns_413(monkeypatch: pytest.MonkeyPatch) -> None:
    right, failed = MongoTransaction.finish, list[bool]()

    async def full(tx: MongoTransaction) -> None:
        if not failed:  # the transaction of the audit line fits
            failed.append(True)
            raise OperationFailure("transaction is too large and will not fit in the storage engine cache", 388)
        await right(tx)

    served = Served(emptied_url(), seeds=False)
    token, patient = served.token(), {"resourceType": "Patient", "id": "p"}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(MongoTransaction, "finish", full)
            refused = served.request(token, "PUT", "Patient/p", body=patient)
        assert refused.status == 413 and "too large for the database" in refused.json["issue"][0]["diagnostics"]
        assert served.request(token, "PUT", "Patient/p", body=patient).status == 201
    finally:
        served.close()


def test_rows_contain_plain_python_values() -> None:
    async def scenario(store: Store, _: str) -> None:
        await put(store, record("a", release_at=MAX_INSTANT, entries=[date("d", 2**60)]), record("a", version=2))

        async def job(transaction: Any) -> Any:
            return await transaction.read_unfiltered(OBS, "a")

        row = await store.write(job)
        assert {type(value) for value in (row.version, row.updated, row.class_id, row.release_at)} == {int}
        assert msgspec.msgpack.encode(row)

    ran(scenario)


@pytest.mark.parametrize("text", ["a.b*c", "^$(x)[y]{2}|\\d", "tab\there", "nul\0in", "é_ü-ß", "%_", "\U0010ffff", "line\nbreak"])
def test_regex_metacharacters_match_literally(text: str) -> None:
    async def scenario(store: Store, _: str) -> None:
        await put(store, record("a", entries=[string("name", f"x{text}y")]), record("b", entries=[string("name", "xaXbbcy")]))
        assert await found(store, Has("name", TextIs(text, "contains"))) == ["a"]

    ran(scenario)


def test_long_code_can_be_searched_for() -> None:
    async def scenario(store: Store, _: str) -> None:
        assert await found(store, Has("code", TokenIs(None, "x" * 100_000))) == []

    ran(scenario)
