"""Compose: the services agree with each other and with the settings, and the replica set begins on a real ``mongod``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from fhir_server.cli.serve import _uvicorn_options
from tests.mongo.mongod import Mongod
from tests.mongo.server_processes import Process
from tests.served import KEY, ROOT
from tests.waiting import HANG

FOLDER = ROOT / "deploy/compose"
TEXT = (FOLDER / "compose.yaml").read_text(encoding="utf-8")


def faults(text: str, made: set[str]) -> list[str]:
    """What is wrong in a Compose file, where ``made`` are the files of secrets that the script makes."""
    compose = yaml.safe_load(text)
    services: dict[str, dict[str, Any]] = compose["services"]
    found = [f"{name} is made by nobody" for name, secret in compose["secrets"].items() if Path(secret["file"]).name not in made]
    for name, service in services.items():
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
        used = set(re.findall(r"/run/secrets/[\w-]+", str(service)))
        found += [f"{name} does not mount {path}" for path in used - mounted]
        found += [f"{name} mounts the unknown {path}" for path in mounted if Path(path).name not in compose["secrets"]]
        found += [f"{name} waits for nobody" for other in service.get("depends_on", ()) if other not in services]
        if not name.startswith("mongodb") and not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
            found.append(f"{name} may change its image or has capabilities")
        if "ports" in service and name != "proxy":
            found.append(f"{name} is open to the outside")
    server, front = services["server"], compose["networks"]["front"]
    proxy = services["proxy"]["networks"]["front"]["ipv4_address"]
    if server["environment"]["FORWARDED_ALLOW_IPS"] != proxy:
        found.append("the server trusts another address than the proxy's")
    if ip_address(proxy) not in ip_network(front["ipam"]["config"][0]["subnet"]):
        found.append("the proxy's address is not of its network")
    if set(services["proxy"]["networks"]) & set(server["networks"]) != {"front"}:
        found.append("the proxy reaches the server from another address")
    drain = int(server["environment"]["FHIR_SERVER_DRAIN_SECONDS"])
    if int(server["stop_grace_period"].removesuffix("s")) <= drain + _uvicorn_options("", 80)["timeout_graceful_shutdown"]:
        found.append("the server is killed while it finishes requests")
    return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets that the script makes."""
    folder = tmp_path_factory.mktemp("compose")
    script = shutil.copy(FOLDER / "make-secrets.sh", folder)
    subprocess.run(["sh", script], check=True)
    return folder / "secrets"


def test_compose_services_agree_with_each_other(secrets: Path) -> None:
    assert faults(TEXT, {path.name for path in secrets.iterdir()}) == []


@pytest.mark.parametrize(
    ("line", "planted", "fault"),
    [
        ("{ file: ./secrets/store }", "{ file: ./secrets/other }", "store is made by nobody"),
        ("secrets: [store, secret-key, metrics-token]", "secrets: [store]", "server does not mount /run/secrets/secret-key"),
        ("172.31.250.2 #", "172.31.250.3 #", "the server trusts another address than the proxy's"),
        ("networks: [front, database, calls]", "networks: [front, outside]", "the proxy reaches the server from another address"),
        ("stop_grace_period: 60s", "stop_grace_period: 10s", "the server is killed while it finishes requests"),
        ("cap_drop: [ALL]\n  security", "security", "server may change its image or has capabilities"),
    ],
)
def test_compose_check_finds_planted_faults(line: str, planted: str, fault: str, secrets: Path) -> None:
    assert line in TEXT
    assert fault in faults(TEXT.replace(line, planted), {path.name for path in secrets.iterdir()})


def test_secrets_are_made_once_and_only_their_folder_is_closed(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run(["sh", secrets.parent / "make-secrets.sh"], check=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700 and {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}
    assert len(before["secret-key"]) >= 32 and len(before["metrics-token"]) >= 16


@pytest.fixture
def members(secrets: Path, tmp_path: Path) -> Iterator[list[Mongod]]:
    """Three servers that the image would start: they require accounts, and the first one has the account ``root``."""
    keyfile = tmp_path / "keyfile"
    keyfile.write_bytes((secrets / "mongodb-keyfile").read_bytes())
    keyfile.chmod(0o400)
    members: list[Mongod] = []
    try:
        members.append(Mongod(replica_set=""))
        members[0].await_answer()
        with members[0].client() as client:
            password = (secrets / "mongodb-root-password").read_text(encoding="utf-8")
            client.admin.command("createUser", "root", pwd=password, roles=["root"])
        members[0].process.terminate()
        members[0].process.wait(HANG)
        first = members.pop()
        members += [Mongod("--keyFile", str(keyfile), folder=folder) for folder in (first.folder, None, None)]
        for member in members:
            member.await_answer()
        yield members
    finally:
        for member in members:
            member.stop()


def test_replica_set_begins_and_the_server_runs_on_it(members: list[Mongod], secrets: Path, tmp_path: Path) -> None:
    addresses = [member.address for member in members]
    given = tmp_path / "secrets"
    shutil.copytree(secrets, given)
    store = given / "store"
    store.chmod(0o600)
    store.write_text(store.read_text(encoding="utf-8").replace("mongodb1,mongodb2,mongodb3", ",".join(addresses)), encoding="utf-8")
    command = [sys.executable, str(FOLDER / "init_replica_set.py"), *addresses]
    environment = {**os.environ, "SECRETS": str(given)}
    first = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert len(first.stdout.splitlines()) == 2 and again.stdout == ""
    with MongoClient[Any](store.read_text(encoding="utf-8")) as client, pytest.raises(OperationFailure, match="not authorized"):
        client.other.things.insert_one({})
    server = Process("", STORE_FILE=str(store), SECRET_KEY=KEY)
    try:
        server.await_answer()
        assert httpx.get(f"{server.address}/readyz", timeout=HANG).text == "ready"
    finally:
        server.kill()
