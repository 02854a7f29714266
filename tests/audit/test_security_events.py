"""The audit events of pages and OAuth endpoints: complete, valid, without secrets, and not readable through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from joserfc.jwk import ECKey

from fhir_server import portal
from fhir_server.audit import LOG_NAME
from fhir_server.audit.verification import verify
from fhir_server.cli import main
from fhir_server.resources.validate import check
from fhir_server.smart import demo
from fhir_server.smart.core.security_events import SecurityEventKind
from tests.portal.environment import Form, Visitor, code_in
from tests.served import make_store
from tests.smart.full_environment import Whole

IG = Path(__file__).parents[2] / "ig"
METADATA = {"client_name": "Sleep diary", "redirect_uris": ["https://sleep.example/cb"], "token_endpoint_auth_method": "none"}


class Journaled(Whole):
    """The whole server with the portal pages, and access to its audit log."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.app._pages.include_router(portal.router(self.smart, self.served.parts.service, self.served.api.ask))  # type: ignore[attr-defined]

    def lines(self) -> list[tuple[int, bytes]]:
        self.served.run(self.served.parts.auditor.flush())
        return list(self.served.run(self.store.read_log(LOG_NAME)))

    def events(self) -> list[dict[str, Any]]:
        """Return the security events in the audit log.  Requests to the FHIR API are not included."""
        found = [json.loads(line)["event"] for _, line in self.lines()]
        return [event for event in found if event["type"]["code"] != "rest"]

    def told(self) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
        """Return the kind, the outcome, the agent ids and the entity references of each security event."""
        return [
            (
                event["subtype"][0].get("display", event["subtype"][0]["code"]),
                event["outcome"],
                tuple(agent["altId"] for agent in event["agent"] if "altId" in agent),
                tuple(one["what"]["reference"] for one in event.get("entity", []) if "reference" in one.get("what", {})),
            )
            for event in self.events()
        ]

    def visitor(self, username: str) -> Visitor:
        visitor = Visitor(self.browser())
        assert visitor.send("/sign-in", "/sign-in", username=username, password=demo.PASSWORD).status_code == 303
        return visitor


@pytest.fixture
def world() -> Iterator[Journaled]:
    made = Journaled()
    yield made
    made.served.close()


def test_sign_in_and_out_are_recorded_without_mistyped_input(world: Journaled) -> None:
    visitor = Visitor(world.browser())
    visitor.send("/sign-in", "/sign-in", username="adult", password="Wrong-pass-2026")
    visitor.send("/sign-in", "/sign-in", username="My-own-pass-2026", password="adult")
    visitor.send("/sign-in", "/sign-in", username="Adult", password=demo.PASSWORD)
    visitor.send("/apps", "/sign-out")
    assert world.told() == [
        ("Login", "4", ("adult",), ()),
        ("Login", "4", (), ()),
        ("Login", "0", ("adult",), ()),
        ("Logout", "0", ("adult",), ()),
    ]
    text = b"".join(line for _, line in world.lines())
    assert b"pass-2026" not in text
    assert world.events()[0]["agent"][0]["network"] == {"address": "127.0.0.1", "type": "2"}


def test_consent_tokens_and_revocation_are_recorded(world: Journaled) -> None:
    tokens = world.tokens("parent-a", "teen")
    renewed = world.refresh(tokens["refresh_token"]).json()
    world.refresh("no-such-token")
    world.post("/oauth/revoke", client_id="demo-public", token=renewed["access_token"])
    parent, teen = ("parent-a", "demo-public"), ("Patient/teen",)
    assert world.told()[1:] == [
        ("allow-app", "0", parent, teen),
        ("token", "0", parent, teen),
        ("token", "0", parent, teen),
        ("token", "4", ("demo-public",), ()),
        ("revoke", "0", parent, teen),
    ]
    assert {"type": "error", "valueString": "invalid_grant"} in world.events()[4]["entity"][0]["detail"]


def test_denied_consent_is_recorded(world: Journaled) -> None:
    world.submit(world.consent_page(), decision="deny")
    assert world.told()[-1] == ("allow-app", "4", ("adult", "demo-public"), ())


def test_issued_and_refused_backend_tokens_are_recorded(world: Journaled) -> None:
    assert world.backend().status_code == 200
    assert world.backend("not.an.assertion").status_code == 400
    assert world.told() == [("token", "0", ("demo-backend",), ()), ("token", "4", (), ())]


def test_sharing_redeeming_and_ending_are_recorded(world: Journaled) -> None:
    adult, other = world.visitor("adult"), world.visitor("newly-adult")
    code = code_in(adult.share())
    other.send("/accept", "/accept", code="AAAA")
    other.send("/accept", "/accept", code=code)
    consent = Form(adult.get("/sharing").text, "/sharing/end").forms[-1]["consent"]
    adult.send("/sharing", "/sharing/end", which=-1)
    told = [act for act in world.told() if act[0] != "Login"]
    assert told[0] == ("share-record", "0", ("adult",), ("Patient/adult", f"Consent/{consent}"))
    assert told[1] == ("use-code", "4", ("newly-adult",), ())
    assert told[2][:3] == ("use-code", "0", ("newly-adult",)) and f"Consent/{consent}" in told[2][3]
    assert told[3] == ("end-sharing", "0", ("adult",), ("Patient/adult", f"Consent/{consent}"))
    assert code.encode() not in b"".join(line for _, line in world.lines())


def test_ending_app_access_and_chart_launch_are_recorded(world: Journaled) -> None:
    world.tokens("adult", "adult")
    world.visitor("adult").send("/apps", "/apps")
    world.visitor("clinician").send("/ehr/adult", "/ehr", app="demo-confidential", encounter="")
    told = world.told()
    assert ("end-app", "0", ("adult", "demo-public"), ("Patient/adult",)) in told
    assert ("open-app", "0", ("clinician", "demo-confidential"), ("Patient/adult",)) in told


def test_registration_changes_and_refusals_are_recorded(world: Journaled) -> None:
    made = world.http.post("/oauth/register", json=METADATA).json()
    place, manager = f"/oauth/register/{made['client_id']}", {"Authorization": f"Bearer {made['registration_access_token']}"}
    assert world.http.request("DELETE", place).status_code == 401
    assert world.http.request("PUT", place, json=METADATA | {"client_id": made["client_id"]}, headers=manager).status_code == 200
    assert world.http.request("DELETE", place, headers=manager).status_code == 204
    assert world.http.post("/oauth/register", json={}).status_code == 400
    app = (made["client_id"],)
    assert world.told() == [
        ("register-app", "0", app, ()),
        ("remove-app", "4", (), ()),  # without its token, the request is not the app's
        ("change-app", "0", app, ()),
        ("remove-app", "0", app, ()),
        ("register-app", "4", (), ()),
    ]
    assert made["registration_access_token"].encode() not in b"".join(line for _, line in world.lines())


def test_security_events_are_valid_chained_and_free_of_tokens(world: Journaled) -> None:
    tokens = world.tokens("parent-a", "teen")
    world.visitor("adult").share()
    world.served.get(tokens["access_token"], "Patient/teen")
    assert len(world.events()) > 4 and len(world.lines()) == len(world.events()) + 1
    for event in world.events():
        assert check("AuditEvent", event) == ()
    assert world.served.run(verify(world.store, world.served.parts.auditor.keys)).findings == []
    text = b"".join(line for _, line in world.lines()).decode()
    assert not [name for name in ("access_token", "refresh_token", "id_token") if tokens[name] in text]


def test_code_system_lists_every_kind_of_security_event() -> None:
    concepts = json.loads((IG / "codesystems/audit-act.json").read_text())["concept"]
    assert {concept["code"] for concept in concepts} == set(get_args(SecurityEventKind)) - {"sign-in", "sign-out"}


def test_security_events_about_a_record_are_found_by_patient_and_officer(world: Journaled) -> None:
    officer = world.served.token("demo-public", "user/*.rs", "privacy-officer")
    world.tokens("adult", "adult")
    world.visitor("adult").share()
    for token in (officer, world.served.app_token("adult", "adult")):
        found = world.served.get(token, "AuditEvent?patient=adult&type=110137&_count=100").json["entry"]
        kinds = [entry["resource"]["subtype"][0]["code"] for entry in found]
        assert {"allow-app", "token", "share-record"} <= set(kinds)
    parent = world.served.app_token("parent-a", "teen")
    assert world.served.get(parent, "AuditEvent?type=110137").json["total"] == 0


@pytest.mark.parametrize("username", ["clinician", None])
def test_security_events_do_not_change_audit_event_searches(world: Journaled, username: str | None) -> None:
    scope = "user/*.rs" if username else "system/*.rs"
    token = world.served.token("demo-public" if username else "demo-backend", scope, username)
    before = world.served.get(token, "AuditEvent").json
    world.tokens("parent-a", "teen")
    world.visitor("adult").share()
    assert len(world.events()) > 3
    after = world.served.get(token, "AuditEvent").json
    assert (before["total"], before.get("entry")) == (after["total"], after.get("entry"))


def test_audit_log_command_shows_the_operators_own_actions(tmp_path: Path) -> None:
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_STORE": f"sqlite:///{tmp_path / 'fhir.sqlite'}"}
    make_store(environment["FHIR_SERVER_STORE"])

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    run(
        "client",
        "add",
        "reader",
        "--name",
        "Reader",
        "--kind",
        "app",
        "--scope",
        "user/*.rs",
        "--redirect-uri",
        "https://reader.example/cb",
    )
    run("user", "add", "nurse", "--role", "clinician", "--password", "A-long-pass-2026")
    token = run("token", "--client", "reader", "--user", "nurse", "--scope", "user/*.rs").strip()
    run("user", "remove", "nurse")
    run("client", "remove", "reader")
    lines = [line.partition("\t") for line in run("journal").splitlines()]
    kinds = [json.loads(line)["event"]["subtype"][0]["code"] for _, _, line in lines]
    assert kinds == ["register-app", "add-user", "operator-token", "remove-user", "remove-app", "read-audit"]
    assert run("journal", "--after", lines[-2][0]).splitlines()[0] == "\t".join(lines[-1][::2])
    assert "A-long-pass-2026" not in repr(lines) and token not in repr(lines)
    assert "7 lines, chain unbroken" in run("doctor")


def test_operator_trust_changes_are_recorded(tmp_path: Path) -> None:
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_STORE": f"sqlite:///{tmp_path / 'fhir.sqlite'}"}
    make_store(environment["FHIR_SERVER_STORE"])
    issuer, keys = "https://id.example", tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [ECKey.generate_key("P-384", auto_kid=True).as_dict(private=False)]}))

    def run(line: str, code: int = 0, typed: str = "") -> str:
        done = CliRunner().invoke(main, line.split(), env=environment, input=typed, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.stdout

    run("user add nurse --role clinician --password A-long-pass-2026")
    invitation = run("client registration-token").strip()
    run(f"publisher trust {issuer} --jwks {keys}")
    run(f"publisher distrust {issuer}")
    run(f"publisher distrust {issuer}", 1)
    run(f"provider add {issuer} --label Regional --client-id us", typed="the-secret-of-it")
    run(f"provider link {issuer} sub-7 nurse")
    run(f"provider link {issuer} sub-8 nobody", 1)
    run(f"provider unlink {issuer} sub-7")
    run(f"provider remove {issuer}")
    run("organization add other --name Other --base https://other.example/fhir --client-id us")
    run("organization remove other")
    run("keys rotate --alg RS256")
    events = [json.loads(line.partition("\t")[2])["event"] for line in run("journal").splitlines()]
    told = [(event["subtype"][0]["code"], event["outcome"] == "0") for event in events]
    assert told == [
        ("add-user", True), ("invite-developer", True), ("trust-publisher", True), ("distrust-publisher", True),
        ("distrust-publisher", False), ("add-provider", True), ("link-subject", True), ("unlink-subject", True),
        ("remove-provider", True), ("add-organisation", True), ("remove-organisation", True), ("rotate-keys", True), ("read-audit", True),
    ]  # fmt: skip
    linked = next(event for event in events if event["subtype"][0]["code"] == "link-subject")
    assert "nurse" in json.dumps(linked["agent"]) and issuer in json.dumps(linked["entity"]) and "sub-7" in json.dumps(linked["entity"])
    assert "the-secret-of-it" not in repr(events) and invitation not in repr(events)
