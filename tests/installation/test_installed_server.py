"""The installed wheel runs in an empty environment from a folder outside the checkout."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.installation.building import ROOT, build_wheel, environment, install_offline, install_online, make_environment
from tests.served import NOON

_KEY = {"FHIR_SERVER_SECRET_KEY": "k" * 32}
_DEMO = {"FHIR_SERVER_MODE": "demo", "FHIR_SERVER_CLOCK": NOON}


@pytest.fixture(scope="module", params=["offline", pytest.param("online", marks=pytest.mark.slow)])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the ``fhir-server`` command of an environment with only the wheel and its declared dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(ROOT, folder / "wheel")
    python = make_environment(folder / "venv")
    if request.param == "offline":
        install_offline(wheel, python)
    else:
        install_online(wheel, python, folder / "constraints.txt")
    return python.with_name("fhir-server")


@pytest.fixture
def origin() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def run(program: Path, folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], cwd=folder, env=environment(**settings), capture_output=True, text=True)


@contextmanager
def running(program: Path, folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a server process, and stops it at the end."""
    server = subprocess.Popen([program, *arguments], cwd=folder, env=environment(**settings), stdout=subprocess.PIPE, text=True)
    try:
        yield server
    finally:
        server.terminate()
        server.communicate()


def read_welcome(server: subprocess.Popen[str]) -> str:
    """Returns the text that the demo prints when it starts to listen.  Fails if the process ends first."""
    assert server.stdout
    text = ""
    while "smart-configuration" not in text:
        line = server.stdout.readline()
        assert line, f"The demo ended after: {text}"
        text += line
    return text


def wait_until_listening(server: subprocess.Popen[str], origin: str) -> None:
    """Waits until the server accepts connections.  Fails if the process ends first."""
    while True:
        assert server.poll() is None, "The server ended."
        try:
            socket.create_connection(("127.0.0.1", int(origin.rpartition(":")[2]))).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


def total(origin: str, token: str, query: str) -> int:
    answer = httpx.get(f"{origin}/fhir/{query}", headers={"Authorization": f"Bearer {token}"}, timeout=None)
    assert answer.status_code == 200, answer.text
    found: int = answer.json()["total"]
    return found


def test_installation_uses_no_file_of_the_checkout(program: Path, tmp_path: Path) -> None:
    code = "import fhir_server, json, sys; print(json.dumps([fhir_server.__file__, *sys.path]))"
    shown = run(program.with_name("python"), tmp_path, "-c", code).stdout
    package, *paths = json.loads(shown)
    assert Path(package).is_relative_to(program.parents[1])
    assert not [path for path in paths if Path(path).is_relative_to(ROOT)]


def test_demo_answers_its_first_calls_from_any_folder(program: Path, tmp_path: Path, origin: str) -> None:
    with running(program, tmp_path, "demo", "--port", origin.rpartition(":")[2], **_DEMO) as server:
        welcome = read_welcome(server)
        assert httpx.get(f"{origin}/fhir/metadata", timeout=None).json()["resourceType"] == "CapabilityStatement"
        assert httpx.get(f"{origin}/fhir/Patient", timeout=None).status_code == 401
        printed = re.search(r"^ *(TOKEN=.*)$", welcome, re.MULTILINE)
        assert printed
        shell = ["sh", "-c", f'{printed[1]}; echo "$TOKEN"']
        settings = environment(FHIR_SERVER_CLOCK=NOON)
        token = subprocess.run(shell, cwd=tmp_path, env=settings, check=True, capture_output=True, text=True).stdout.strip()
        scope = ("--client", "demo-public", "--user", "parent-a", "--patient", "teen", "--scope", "patient/*.rs")
        parent = run(program, tmp_path, "token", *scope, **_DEMO).stdout.strip()
        query = "Observation?patient=teen&_summary=count"
        assert (total(origin, token, query), total(origin, parent, query)) == (27, 14)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    checked = run(program, tmp_path, "doctor", **_DEMO)
    classes = re.search(r"(\d+) visibility classes", checked.stdout)
    assert classes and int(classes[1]) > 1, checked


def test_doctor_and_load_use_the_default_store(program: Path, tmp_path: Path) -> None:
    assert "FHIR_SERVER_SECRET_KEY must be a secret" in run(program, tmp_path, "create-store").stderr
    assert not (tmp_path / "data").exists()
    assert "Made the store" in run(program, tmp_path, "create-store", **_KEY).stdout
    assert "chain unbroken" in run(program, tmp_path, "doctor", **_KEY).stdout
    bundle = tmp_path / "bundle.json"
    shutil.copy(ROOT / "seed_bundles/30-teen.json", bundle)
    entries = len(json.loads(bundle.read_bytes())["entry"])
    assert run(program, tmp_path, "load", "bundle.json", **_KEY).stdout == f"{entries} stored, 0 already there, 0 rejected.\n"
    assert (tmp_path / "data/fhir.sqlite").is_file()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("settings", [_DEMO, _KEY], ids=["demo", "production"])
def test_serve_starts_in_an_empty_folder(program: Path, tmp_path: Path, origin: str, settings: dict[str, str]) -> None:
    port = origin.rpartition(":")[2]
    with running(program, tmp_path, "serve", "--create-store", "--port", port, FHIR_SERVER_ORIGIN=origin, **settings) as server:
        wait_until_listening(server, origin)
        assert httpx.get(f"{origin}/fhir/metadata", timeout=None).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Error: FHIR_SERVER_SECRET_KEY must be a secret"),
        ({"FHIR_SERVER_MODE": "demo", "FHIR_SERVER_IG_PATH": "missing"}, "Error: No lists of sensitive and ordinary codes in missing"),
        ({"FHIR_SERVER_MODE": "demo", "FHIR_SERVER_STORE": "sqlite:///file/fhir.sqlite"}, "Error: Cannot make the folder"),
    ],
    ids=["key", "code-lists", "store-folder"],
)
def test_serve_reports_what_is_missing(program: Path, tmp_path: Path, settings: dict[str, str], message: str) -> None:
    (tmp_path / "file").touch()
    ended = run(program, tmp_path, "serve", "--create-store", "--workers", "2", **settings)
    assert ended.returncode == 1
    assert ended.stderr.startswith(message) and ended.stderr.count("\n") == 1


def test_explicit_store_in_a_missing_folder_is_an_error(program: Path, tmp_path: Path) -> None:
    ended = run(program, tmp_path, "doctor", FHIR_SERVER_STORE="sqlite:///typo/fhir.sqlite", **_KEY)
    assert ended.returncode == 1 and "There is no store at sqlite:///typo/fhir.sqlite" in ended.stderr
    assert not (tmp_path / "typo").exists()
