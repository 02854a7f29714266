"""``organization check``: an operator sees why people cannot link accounts."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from fhir_server.cli import organizations as commands
from fhir_server.cli.base import main
from fhir_server.linking.checking import Finding, check
from fhir_server.linking.organizations import Organization
from tests.linking.odd_partners import DISCOVERY, ODD, ODD_ORIGIN, OddWorld, failing
from tests.served import make_store

DOCUMENT = "/fhir/.well-known/smart-configuration"
ELSEWHERE = "http://127.0.0.1:6666"
FINE = {"/fhir/metadata": {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}}


def _checked(instead: dict[str, Any], organization: Organization = ODD) -> list[Finding]:
    world = OddWorld(FINE | instead, organization)
    return asyncio.run(check(world.ours.context, organization))


def _without(name: str, **changes: Any) -> dict[str, Any]:
    return {DOCUMENT: {key: value for key, value in DISCOVERY.items() if key != name} | changes}


def test_check_of_a_usable_organization_has_no_problem() -> None:
    assert [finding.rating for finding in _checked({})] == ["ok", "ok", "ok", "ok"]
    assert _checked({})[-1].text == "Its FHIR version is R4"


PROBLEMS = {
    "no document": ({DOCUMENT: failing(404)}, "its SMART configuration was answered with status 404"),
    "no JSON": ({DOCUMENT: failing(200)}, "its SMART configuration is not a JSON object"),
    "no connection": (
        {DOCUMENT: httpx.ConnectError("no")},
        f"The SMART configuration at {ODD_ORIGIN}/fhir could not be fetched: no connection, or it broke off",
    ),
    "no PKCE": (
        _without("code_challenge_methods_supported"),
        "code_challenge_methods_supported does not have S256 (PKCE), which this server needs",
    ),
    "no endpoint": (_without("token_endpoint"), "token_endpoint is missing"),
    "relative URL": (_without("", token_endpoint="/token"), "token_endpoint is '/token', which is not an absolute URL"),
    "other origin": (
        _without("", issuer=ELSEWHERE),
        f"issuer is at {ELSEWHERE}, and not at {ODD_ORIGIN}, the registered sign-in origin (--sign-in)",
    ),
    "unsafe URL": (
        _without("", authorization_endpoint="http://10.0.0.1/x\n"),
        "authorization_endpoint is 'http://10.0.0.1/x\\n', which is not an https URL that this server may call",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_check_and_log_name_the_cause(problem: str, caplog: pytest.LogCaptureFixture) -> None:
    instead, words = PROBLEMS[problem]
    assert Finding("problem", words) in _checked(instead)
    world = OddWorld(instead)
    with caplog.at_level(logging.WARNING, "fhir_server.linking"):
        answer = world.start()
    assert answer.status_code == 503
    assert caplog.messages == [f"Organization odd: people cannot link accounts: {words.rpartition('fetched: ')[2]}."]


@pytest.mark.parametrize(
    ("organization", "instead", "words"),
    [
        (msgspec.structs.replace(ODD, own_redirect_uri=False), {}, "is shared with other organizations"),
        (ODD, _without("revocation_endpoint"), "no revocation endpoint"),
        (ODD, {"/fhir/metadata": failing(404)}, "names no FHIR version"),
        (
            msgspec.structs.replace(ODD, method="private_key_jwt"),
            _without("", token_endpoint_auth_methods_supported=["client_secret_basic"]),
            "does not have private_key_jwt",
        ),
    ],
    ids=["redirect", "revocation", "version", "method"],
)
def test_check_warns_of_what_does_not_prevent_linking(organization: Organization, instead: dict[str, Any], words: str) -> None:
    findings = _checked(instead, organization)
    assert any(finding.rating == "warning" and words in finding.text for finding in findings)
    assert not [finding for finding in findings if finding.rating == "problem"]


def test_commands_add_check_and_list_an_organization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    make_store(url)
    monkeypatch.setenv("FHIR_SERVER_STORE", url)
    monkeypatch.setenv("FHIR_SERVER_MODE", "demo")

    async def fine(*_: object) -> list[Finding]:
        return findings

    monkeypatch.setattr(commands, "check", fine)
    added = _run("add", "odd", "--name", "Odd", "--base", ODD.base, "--client-id", "us", "--place", "Springfield")
    assert added.output.rstrip().endswith("/links/callback/odd")
    assert "shared redirect URI" not in _run("list").output
    findings = [Finding("ok", "fine"), Finding("warning", "hm")]
    assert _run("check", "odd").output == "ok       fine\nwarning  hm\n"
    findings = [Finding("problem", "no PKCE")]
    failed = _run("check", "odd")
    assert failed.exit_code == 1
    assert "problem  no PKCE" in failed.output
    assert "There is no organization 'even'" in _run("check", "even").output


def test_changing_an_organization_keeps_its_redirect_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    make_store(url)
    monkeypatch.setenv("FHIR_SERVER_STORE", url)
    monkeypatch.setenv("FHIR_SERVER_MODE", "demo")

    from fhir_server.cli.base import run_with_components
    from fhir_server.linking import organizations

    old = msgspec.structs.replace(ODD, own_redirect_uri=False)
    run_with_components(lambda components: organizations.add(components.smart, old))
    change = ("add", "odd", "--name", "Odd", "--base", ODD.base, "--client-id", "us")
    assert _run(*change).output.rstrip().endswith("/links/callback")
    assert "shared redirect URI" in _run("list").output
    assert _run(*change, "--own-redirect-uri").output.rstrip().endswith("/links/callback/odd")
    assert _run(*change).output.rstrip().endswith("/links/callback/odd")


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["organization", *arguments])
