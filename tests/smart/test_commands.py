"""Operator commands.  Each test has a separate store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import ECKey, KeySet

from fhir_server.cli import main
from tests.served import make_store


@pytest.fixture
def run(tmp_path: Path) -> object:
    environment = {"FHIR_SERVER_STORE": f"sqlite:///{tmp_path}/s.sqlite", "FHIR_SERVER_MODE": "test"}
    make_store(environment["FHIR_SERVER_STORE"])

    def invoked(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=environment | more, catch_exceptions=False)

    return invoked


def test_keys_are_rotated_and_listed(run) -> None:  # type: ignore[no-untyped-def]
    assert run("keys", "rotate").exit_code == 0
    assert run("keys", "rotate", "--alg", "RS256").exit_code == 0
    listed = run("keys", "list").output
    assert listed.count("current") == 3
    assert listed.count("retired") == 1
    refused = run("keys", "rotate", FHIR_SERVER_MODE="production")
    assert (refused.exit_code, "FHIR_SERVER_SECRET_KEY" in refused.output) == (1, True)


def test_initial_access_token_command_prints_only_the_token(run) -> None:  # type: ignore[no-untyped-def]
    first, second = run("client", "registration-token").output.strip(), run("client", "registration-token").output.strip()
    assert len(first) == len(second) == 43
    assert first != second


def test_publishers_are_trusted_listed_and_distrusted(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(KeySet([ECKey.generate_key("P-384", auto_kid=True)]).as_dict(private=False)))
    assert run("publisher", "trust", "https://publisher.example", "--jwks", str(file)).exit_code == 0
    assert run("publisher", "list").output.strip() == "https://publisher.example"
    assert run("publisher", "distrust", "https://publisher.example").exit_code == 0
    assert run("publisher", "list").output == ""
    assert run("publisher", "distrust", "https://publisher.example").exit_code == 1
    file.write_text('{"keys": []}')
    assert run("publisher", "trust", "x", "--jwks", str(file)).exit_code == 1


def test_smart_88_client_add_accepts_only_an_https_jwks_uri(run) -> None:  # type: ignore[no-untyped-def]
    common = ("client", "add", "feed", "--name", "Feed", "--kind", "backend", "--method", "private_key_jwt", "--scope", "system/*.rs")
    assert run(*common).exit_code == 1
    assert run(*common, "--jwks-uri", "http://feed.example/jwks").exit_code == 1
    assert run(*common, "--jwks-uri", "https://feed.example/jwks").exit_code == 0
    shown = json.loads(run("client", "show", "feed").output)
    assert shown["jwks_uri"] == "https://feed.example/jwks"
    assert not {"secret", "manager"} & shown.keys()


def test_policy_command_accepts_names_and_relative_paths(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "site.json").write_text(json.dumps({"policy": "site", "extends": "optum"}))
    (tmp_path / "own.json").write_text(json.dumps({"policy": "own", "extends": "below/site.json"}))
    for name in ("optum", "strict", "own.json", "./own.json", "below/site.json", str(tmp_path / "own.json")):
        checked = run("policy", name)
        assert checked.exit_code == 0 and checked.output.startswith(f"{name}: version "), checked.output
        assert run("policy", FHIR_SERVER_POLICY=name).output == checked.output
    assert "There is no policy file absent.json" in run("policy", "absent.json").output
