"""The id that an answer bears is in the audit lines of the request, and an operator finds them by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi import FastAPI

from fhir_server.access import audit_projection
from fhir_server.audit import LOG_NAME, AuditLog
from fhir_server.audit.chain import ChainKeys
from fhir_server.cli import main
from fhir_server.request_ids import request_id
from fhir_server.resources.validate import check
from fhir_server.root_app import RootApp
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import open_store
from tests.audit.test_security_events import Journaled
from tests.seeded import seeded
from tests.served import KEY, Answer, Served, call, make_store

SENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
UNFIT = ["Patient/teen has HIV", "0123456789abcde", "0" * 65, f"{SENT}\u00e9", f"{SENT} ", '","outcome":"0', "adult" * 5]


@pytest.fixture
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


def ask(served: Served, token: str, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    """Send a request to the whole server, through what gives it an id."""
    sent = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"} | headers
    path, _, query = path.partition("?")
    return served.run(call(RootApp(served.api, FastAPI()), method, f"/fhir/{path}", query.encode(), sent, body))


def lines(served: Served) -> list[dict[str, Any]]:
    served.run(served.parts.auditor.flush())
    return [json.loads(line)["event"] for _, line in served.run(served.parts.store.read_log(LOG_NAME))]


def ids_of(event: dict[str, Any]) -> list[str]:
    found = [one["what"]["identifier"]["value"] for one in event.get("entity", ()) if one.get("type") == audit_projection.REQUEST_ID]
    assert check("AuditEvent", event) == ()
    return found


def test_line_of_each_request_has_the_id_of_its_answer(served: Served) -> None:
    token = served.token()
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/adult"}}] * 3}
    created = json.dumps({"resourceType": "Basic", "code": {"text": "x"}}).encode()
    answers = [
        ask(served, token, "Patient/adult"),
        ask(served, token, "Patient?_count=2"),
        ask(served, token, "Basic", "POST", created),
        ask(served, token, "", "POST", json.dumps(bundle).encode()),
        ask(served, "no token", "Patient/adult"),
        ask(served, token, "Patient/none"),
    ]
    given = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status for answer in answers] == [200, 200, 201, 200, 401, 404] and len(set(given)) == 6
    assert [ids_of(event) for event in lines(served)] == [[id] for id in given]


def test_only_an_id_of_its_grammar_is_taken_from_the_caller(served: Served) -> None:
    token = served.token()
    for text in (SENT, "ABCDEF0123456789"):
        assert ask(served, token, "Patient/adult", **{"x-request-id": text}).headers["x-request-id"] == text
    for text in UNFIT:
        assert ask(served, token, "Patient/adult", **{"x-request-id": text}).headers["x-request-id"] != text
    kept = [ids_of(event)[0] for event in lines(served)]
    assert kept[:2] == [SENT, "ABCDEF0123456789"] and all(len(id) == 32 and int(id, 16) for id in kept[2:])


def test_security_events_of_pages_have_the_id_of_the_answer() -> None:
    world = Journaled()
    answer = world.http.post("/oauth/token", data={"grant_type": "authorization_code", "code": "none", "client_id": "demo-public"})
    assert answer.status_code == 400
    assert ids_of(world.events()[-1]) == [answer.headers["x-request-id"]]


def test_events_outside_a_request_have_no_id(served: Served) -> None:
    assert request_id.get() == ""
    served.run(served.parts.smart.record(SecurityEvent("start-server")))
    assert ids_of(lines(served)[-1]) == []


def test_officer_reads_the_id_and_others_do_not_read_the_ids_of_others(served: Served) -> None:
    officer = served.token("demo-public", "user/*.rs", "privacy-officer")
    own = served.app_token("adult", "adult")
    first = ask(served, served.token("demo-public", "user/*.rs", "clinician"), "Patient/adult").headers["x-request-id"]
    second = ask(served, own, "Patient/adult").headers["x-request-id"]
    shown = served.get(officer, "AuditEvent").json["entry"]
    assert [ids_of(entry["resource"]) for entry in shown] == [[second], [first]]
    shown = served.get(own, "AuditEvent").json["entry"]
    assert [ids_of(entry["resource"]) for entry in shown] == [[second], []]


def own_acts(served: Served) -> list[dict[str, Any]]:
    token = served.app_token("parent-a", "teen")
    assert ask(served, token, "Observation/teen-hiv-screen").status == 404
    assert ask(served, token, "Observation/teen-hemoglobin").status == 200
    return [entry["resource"] for entry in served.get(token, "AuditEvent").json.get("entry", ())]


def test_act_about_a_hidden_row_stays_hidden_though_it_has_an_id(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    events = own_acts(served)
    assert len(events) == 1 and "teen-hemoglobin" in json.dumps(events)
    monkeypatch.setattr(audit_projection, "_is_request_id", lambda entity: False)
    assert len(own_acts(served)) > 2  # the control: taken for something that was asked, the id shows the act


def test_operator_finds_the_lines_of_a_request(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'fhir.sqlite'}"
    make_store(url)

    async def record() -> None:
        store = open_store(url)
        log = AuditLog(store, ChainKeys(KEY))
        for id, name in ((SENT, "first"), ("0" * 32, "second"), (SENT, "third"), ("", SENT)):
            request_id.set(id)
            await log.record_event(SecurityEvent("sign-in", username=name), 0)
        await log.close()
        await store.close()

    asyncio.run(record())
    environment = {"FHIR_SERVER_MODE": "test", "FHIR_SERVER_STORE": url, "FHIR_SERVER_SECRET_KEY": KEY}

    def journal(*options: str) -> Any:
        return CliRunner().invoke(main, ["journal", *options], env=environment, catch_exceptions=False)

    found = [json.loads(row.partition("\t")[2])["event"] for row in journal("--request", SENT).output.splitlines()]
    assert [event["agent"][0]["altId"] for event in found] == ["first", "third"]
    assert len(journal("--request", SENT, "--after", "2").output.splitlines()) == 1
    assert f'{{"type":"request","valueString":"{SENT}"}}' in journal().output  # what was looked for is recorded
    refused = journal("--request", "Patient/teen")
    assert refused.exit_code == 2 and "hexadecimal" in refused.output
