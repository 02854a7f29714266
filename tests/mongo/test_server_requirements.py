"""A MongoDB that is not a replica set, is too old, or lacks rights is refused with an error that says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from pymongo import IndexModel, MongoClient

from fhir_server.cli import main
from fhir_server.cli.base import run_with_components
from fhir_server.settings import Settings
from fhir_server.store import open_store
from fhir_server.store.mongodb import schema
from tests.mongo.mongod import Mongod, ReplicaSet
from tests.mongo.shared_mongod import fresh_url, server_url
from tests.store.samples import put, record


def prepared(url: str) -> None:
    async def job() -> None:
        store = open_store(url)
        try:
            await store.prepare()
            await put(store, record("a"))
        finally:
            await store.close()

    asyncio.run(job())


def test_a_standalone_server_is_refused() -> None:
    server = Mongod(replica_set="")
    try:
        with pytest.raises(ValueError, match=r"standalone server.*--replSet.*rs\.initiate"):
            prepared(f"mongodb://{server.address}/fhir")
    finally:
        server.stop()


def test_outdated_mongodb_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OLDEST", (6, 1))
    with pytest.raises(ValueError, match=r"version 6\.0\.27\. Version 6\.0 or later"):
        prepared(fresh_url())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a server with authentication, and with users ``reader`` and ``writer`` of the database ``fhir``."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("a key between the members of this set")
    key.chmod(0o600)
    servers = ReplicaSet(1, "--keyFile", str(key))
    try:
        with servers.members[0].client() as client:
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        with MongoClient(f"mongodb://root:root@{servers.members[0].address}/?directConnection=true") as client:
            for name, role in (("reader", "read"), ("writer", "readWrite")):
                client.admin.command("createUser", name, pwd="word", roles=[{"role": role, "db": "fhir"}])
        yield servers.members[0].address
    finally:
        servers.stop()


def test_read_only_user_is_refused_with_the_role_to_grant(guarded: str) -> None:
    with pytest.raises(ValueError, match="database fhir: grant it the role readWrite"):
        prepared(f"mongodb://reader:word@{guarded}/fhir?authSource=admin")
    prepared(f"mongodb://writer:word@{guarded}/fhir?authSource=admin")


def test_wrong_or_missing_database_password_is_refused(guarded: str) -> None:
    with pytest.raises(ValueError, match="rejects the user or password"):
        prepared(f"mongodb://writer:wrong@{guarded}/fhir?authSource=admin")
    with pytest.raises(ValueError, match="lacks rights"):
        prepared(f"mongodb://{guarded}/fhir")


@pytest.mark.parametrize("url", ["mongodb://", "mongodb://host:port/x", "mongodb://127.0.0.1/x?tls=perhaps", "mongodb://127.0.0.1/a b"])
def test_invalid_mongodb_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="FHIR_SERVER_STORE"):
        prepared(url)


def test_unreachable_server_raises_os_error() -> None:
    with pytest.raises(OSError, match="cannot be reached"):
        prepared("mongodb://127.0.0.1:9/x?serverSelectionTimeoutMS=200")


def test_cli_command_reports_an_unreachable_server(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(store="mongodb://127.0.0.1:9/x?serverSelectionTimeoutMS=200", mode="test")
    import click

    with pytest.raises(click.ClickException, match="cannot be reached"):
        run_with_components(lambda components: components.prepare(), settings)


def test_conflicting_index_is_named_in_the_error(tmp_path: Any) -> None:
    url = fresh_url()
    with MongoClient[dict[str, Any]](url) as client:
        client.get_default_database()["resources"].create_indexes([IndexModel([("type", -1)], name="place")])
    with pytest.raises(ValueError, match=r"An index of the database .* Drop the index.*place"):
        prepared(url)


def test_database_with_newer_schema_is_refused() -> None:
    url = fresh_url()
    prepared(url)
    with MongoClient[dict[str, Any]](url) as client:
        client.get_default_database()["counters"].update_one({"_id": "schema"}, {"$inc": {"value": 1}})
    with pytest.raises(ValueError, match="later version"):
        prepared(url)


def test_collections_can_be_created_concurrently() -> None:
    url = fresh_url()

    async def job() -> None:
        stores = [open_store(url) for _ in range(4)]
        await asyncio.gather(*(store.prepare() for store in stores))
        await put(stores[0], record("a"))
        for store in stores:
            await store.close()

    asyncio.run(job())
    with MongoClient[dict[str, Any]](url) as client:
        names = client.get_default_database()["resources"].index_information()
    assert {index.document["name"] for index in schema.INDEXES["resources"]} <= set(names)
    assert "{name}" in server_url()


def test_doctor_command_hides_database_credentials(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_SERVER_STORE", f"mongodb://writer:word@{guarded}/fhir?authSource=admin")
    monkeypatch.setenv("FHIR_SERVER_MODE", "test")
    shown = CliRunner().invoke(main, ["doctor"])
    assert "no damage found" in shown.output and f"mongodb://{guarded}/fhir" in shown.output, shown.output
    assert "word@" not in shown.output and "writer" not in shown.output
