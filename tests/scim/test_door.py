"""Who gets in: a token of its own scope, which opens nothing else; decided before the body; recorded in the one audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from fastapi import FastAPI
from joserfc import jwt

from fhir_server.audit.verification import verify
from fhir_server.errors import Problem
from fhir_server.interactions.routing import ROUTES
from fhir_server.scim import routes
from fhir_server.smart import routes as smart_routes
from fhir_server.smart.clients import clients, registration
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.core.scopes import ADMINISTRATION, narrow_scopes
from tests.scim.environment import CLIENT, KEY, LINKS, PASSWORD, PATCH, USER, Administration
from tests.served import call
from tests.smart.environment import ASSERTION_TYPE

REQUESTS = [
    ("GET", "/Users"), ("POST", "/Users"), ("POST", "/Users/.search"), ("GET", "/Users/x"), ("PUT", "/Users/x"), ("PATCH", "/Users/x"),
    ("DELETE", "/Users/x"), ("GET", "/Schemas"), ("GET", "/ResourceTypes"), ("GET", "/Me"), ("POST", "/Bulk"), ("GET", "/nothing"),
    ("DELETE", "/Schemas"),
]  # fmt: skip
NAMES = {
    "{type}": "Patient",
    "{compartment}": "Patient",
    "{member}": "Observation",
    "{id}": "adult",
    "{version}": "1",
    "{job}": "job",
    "{file}": "1",
}


@pytest.fixture(scope="module")
def administration() -> Iterator[Administration]:
    made = Administration()
    yield made
    made.close()


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_only_a_token_for_administration_gets_in(administration: Administration, method: str, path: str) -> None:
    served = administration.served
    body = {} if method in ("POST", "PUT", "PATCH") else None
    assert administration.request(method, path, body).status not in (401, 403)
    for wrong in (None, "invented"):
        refused = administration.request(method, path, body, token=wrong)
        assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    for fhir in (served.token(), served.app_token("adult", "adult"), served.token("demo-public", "user/*.cruds", "privacy-officer")):
        refused = administration.request(method, path, body, token=fhir)
        assert refused.status == 403 and "insufficient_scope" in refused.headers["www-authenticate"]
        assert refused.json["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]


def test_body_is_not_read_before_the_token(administration: Administration) -> None:
    async def unread() -> Any:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    for token, status in (("invented", 401), (administration.served.token(), 403)):
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/scim+json")]
        scope = {
            "type": "http", "method": "POST", "path": "/scim/v2/Users", "query_string": b"", "headers": headers, "client": ("192.0.2.7", 1),
        }  # fmt: skip
        administration.served.run(administration.app(scope, unread, send))
        assert sent[-2]["status"] == status
    good = [(b"authorization", f"Bearer {administration.token}".encode()), (b"content-type", b"application/scim+json")]
    with pytest.raises(AssertionError, match="was read"):
        administration.served.run(administration.app(scope | {"headers": good}, unread, send))


def test_token_for_administration_reads_nothing_of_fhir(administration: Administration) -> None:
    served, token = administration.served, administration.token
    for route in ROUTES:
        path = "/".join(NAMES.get(step, step) for step in route.shape)
        body = {} if route.method in ("POST", "PUT") else None
        refused = served.request(token, route.method, path, body=body, headers={"prefer": "respond-async"})
        assert refused.status == 403, (route, refused.body)
    assert served.request(token, "POST", "", body={}).status == 403  # a Bundle
    assert served.get(served.token(), "Patient/adult").status == 200


def test_scope_is_given_only_to_backends_that_have_no_other() -> None:
    clients._check(CLIENT)
    for wrong in (
        msgspec.structs.replace(CLIENT, scopes="system/scim system/*.rs"),
        msgspec.structs.replace(CLIENT, kind="app", redirect_uris=("https://app.example/cb",)),
    ):
        with pytest.raises(ValueError, match="no other scope"):
            clients._check(wrong)
    assert narrow_scopes(ADMINISTRATION, ADMINISTRATION, frozenset({"system"})) == (ADMINISTRATION,)
    assert narrow_scopes(ADMINISTRATION, ADMINISTRATION, frozenset({"patient", "user"})) == ()
    assert narrow_scopes(ADMINISTRATION, "system/*.cruds", frozenset({"system"})) == ()
    assert narrow_scopes(ADMINISTRATION, registration._ALLOWED_SCOPES, frozenset({"system"})) == ()


def test_client_that_was_stored_with_both_scopes_gets_in_nowhere(administration: Administration) -> None:
    both = msgspec.structs.replace(CLIENT, client_id="both", scopes="system/scim system/*.rs")
    served = administration.served
    served.run(clients._clients.save(administration.store, "both", both))
    token = served.token("both", "system/scim system/Patient.rs")
    assert administration.request("GET", "/Users", token=token).status == 403


def test_token_ends_with_its_client(administration: Administration) -> None:
    served = administration.served
    served.run(clients.save(administration.store, msgspec.structs.replace(CLIENT, client_id="former")))
    token = served.token("former", "system/scim")
    assert administration.request("GET", "/Users", token=token).status == 200
    served.run(clients.remove(administration.store, "former", served.parts.clock()))
    assert administration.request("GET", "/Users", token=token).status == 401


def test_backend_gets_the_token_by_client_credentials(administration: Administration) -> None:
    app = FastAPI()
    app.include_router(smart_routes.router(administration.smart))
    app.include_router(routes.router(administration.smart))
    now = administration.smart.now() // SECOND
    claims = {"iss": "identity", "sub": "identity", "aud": f"{administration.smart.origin}/oauth/token", "exp": now + 300, "jti": "1"}
    form = {
        "grant_type": "client_credentials",
        "scope": "system/scim system/*.rs",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jwt.encode({"alg": "ES384", "kid": KEY.kid}, claims, KEY, algorithms=["ES384"]),
    }
    headers = {"content-type": "application/x-www-form-urlencoded"}
    served = administration.served
    issued = served.run(call(app, "POST", "/oauth/token", b"", headers, urlencode(form).encode())).json
    assert issued["scope"] == "system/scim", issued
    bearer = {"authorization": f"Bearer {issued['access_token']}"}
    assert served.run(call(app, "GET", "/scim/v2/Users", b"", bearer, b"")).json["totalResults"] > 0
    asked = urlencode({"token": issued["access_token"]}).encode()
    known = served.run(call(app, "POST", "/oauth/introspect", b"", headers | bearer, asked)).json
    assert (known["active"], known["scope"], known["client_id"]) == (True, "system/scim", "identity")


def test_answers_are_the_same_whatever_records_there_are() -> None:
    """Ids of records that exist and of others: an administrator of accounts learns nothing of records."""
    answers = []
    for seeds in (True, False):
        made = Administration(seeds=seeds)
        body = {"schemas": [USER], "userName": "probe", LINKS: {"patient": "teen", "relatedPersons": [{"value": "nobody"}]}}
        created = made.request("POST", "/Users", body)
        answers.append((created.status, set(created.json), created.json[LINKS], made.request("GET", "/Users").json["totalResults"]))
        made.close()
    assert answers[0] == answers[1] and answers[0][0] == 201


def test_every_request_is_one_line_of_the_one_chain(administration: Administration) -> None:
    before = len(administration.events())
    id = administration.create("audited", password=PASSWORD, **{LINKS: {"patient": "audited-patient"}})["id"]
    administration.patch(id, {"op": "replace", "path": "active", "value": False})
    administration.request("GET", "/Users?filter=userName%20eq%20%22audited%22")
    administration.request("DELETE", f"/Users/{id}")
    administration.request("GET", "/Users", token="invented")
    lines = administration.events()[before:]
    kinds = [line["subtype"][0]["code"] for line in lines]
    assert kinds == ["add-user", "change-account", "read-users", "remove-user", "read-users"]
    assert [line["outcome"] for line in lines] == ["0", "0", "0", "0", "4"]
    named = [next(entity["detail"] for entity in line["entity"] if "detail" in entity) for line in lines]
    details = [{each["type"]: each["valueString"] for each in detail} for detail in named]
    assert details[0] == {"what": "POST /Users", "status": "201", "user": "audited", "role": "patient", "locked": "false"}
    assert details[1]["locked"] == "true" and details[2]["filter"] == 'userName eq "audited"'
    assert lines[0]["entity"][0] == {"what": {"reference": "Patient/audited-patient"}}
    assert lines[0]["agent"][0]["who"]["display"] == "Client identity" and lines[0]["agent"][0]["network"]["address"] == "192.0.2.7"
    assert lines[4]["agent"][0]["who"]["display"] == "unidentified"
    text = json.dumps(lines)
    assert PASSWORD not in text and "argon2" not in text and administration.token not in text
    assert administration.served.run(verify(administration.store, administration.served.parts.auditor.keys)).findings == []


def test_answer_waits_for_its_line(administration: Administration, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any) -> None:
        raise Problem("busy", "The audit log could not be written.")

    app = FastAPI()
    app.include_router(routes.router(replace(administration.smart, record_security_event=failing)))
    with monkeypatch.context() as patch:
        patch.setattr(administration, "app", app)
        answer = administration.request("GET", "/Users")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1") and "Resources" not in answer.json
    assert administration.request("GET", "/Users").status == 200


def test_bodies_have_a_type_and_a_size(administration: Administration) -> None:
    assert administration.request("POST", "/Users", b"{}", headers={"content-type": "text/plain"}).status == 415
    assert administration.request("POST", "/Users", b" " * 70_000).status == 413
    assert administration.request("POST", "/Users", b" " * 70_000, headers={"transfer-encoding": "chunked"}).status == 413
    body = json.dumps({"schemas": [USER], "userName": "by-json"}).encode()
    assert administration.request("POST", "/Users", body, headers={"content-type": "application/json; charset=utf-8"}).status == 201


def test_too_many_requests_are_refused_with_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_FAILURES", 3)
    monkeypatch.setattr(routes, "MAX_REQUESTS", 5)
    made = Administration(seeds=False)
    asked = [made.request("GET", "/Users").status for _ in range(6)]
    assert asked == [200] * 5 + [429]
    failed = [made.request("GET", "/Users", token="invented") for _ in range(4)]
    assert [answer.status for answer in failed] == [401] * 3 + [429] and int(failed[-1].headers["retry-after"]) > 0
    made.close()


def test_concurrent_changes_of_one_version_have_one_winner(administration: Administration) -> None:
    made = administration.create("contended")
    served = administration.served

    async def patch(number: int) -> int:
        operations = [{"op": "replace", "path": "displayName", "value": f"Name {number}"}]
        body = json.dumps({"schemas": [PATCH], "Operations": operations}).encode()
        headers = {
            "authorization": f"Bearer {administration.token}", "content-type": "application/scim+json", "if-match": made["meta"]["version"],
        }  # fmt: skip
        return (await call(administration.app, "PATCH", f"/scim/v2/Users/{made['id']}", b"", headers, body)).status

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*map(patch, range(5)))

    assert sorted(served.run(all_at_once())) == [200, 412, 412, 412, 412]
