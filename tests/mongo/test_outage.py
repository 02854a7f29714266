"""While MongoDB does not respond, every request gets 503 with Retry-After, never 500.  Afterwards every response is as before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.mongo.mongod import ReplicaSet
from tests.mongo.server_processes import ORIGIN, Process
from tests.seeded import seeded
from tests.waiting import HANG, wait_until

# Code for a process with a short retry time, so that the test does not wait long.
HASTY = "from fhir_server.store.mongodb import retry; retry._RETRY_SECONDS = 0.5"
ROW = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/adult"}}
AUTHORIZE = {
    "response_type": "code", "client_id": "demo-public", "redirect_uri": "http://127.0.0.1/", "scope": "patient/*.rs", "state": "s",
    "aud": f"{ORIGIN}/fhir", "code_challenge": "c" * 43, "code_challenge_method": "S256",
}  # fmt: skip


def bundle(type: str) -> dict[str, Any]:
    entry = {"resource": ROW, "request": {"method": "POST", "url": "Observation"}}
    return {"resourceType": "Bundle", "type": type, "entry": [entry]}


# (method, path, body); all of these use the store
FHIR: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/fhir/Patient/adult", None),
    ("GET", "/fhir/Observation?code=718-7", None),
    ("GET", "/fhir/Observation/adult-hemoglobin/_history", None),
    ("GET", "/fhir/Patient/adult/$everything", None),
    ("POST", "/fhir/Observation", ROW),
    ("PUT", "/fhir/Observation/mine", {**ROW, "id": "mine"}),
    ("DELETE", "/fhir/Observation/mine", None),
    ("POST", "/fhir", bundle("transaction")),
)
OAUTH: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/oauth/token", {"grant_type": "authorization_code", "client_id": "demo-public", "code": "x", "code_verifier": "v" * 43}),
    ("POST", "/oauth/token", {"grant_type": "refresh_token", "client_id": "demo-public", "refresh_token": "x"}),
    ("POST", "/oauth/revoke", {"client_id": "demo-public", "token": "x"}),
    ("POST", "/oauth/introspect", {"client_id": "demo-confidential", "client_secret": "x", "token": "x"}),
    ("GET", "/oauth/jwks", None),
)
PAGES: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/oauth/authorize", AUTHORIZE),
    ("GET", "/oauth/continue?request=x", None),
    ("GET", "/", None),
)


@pytest.fixture(scope="module")
def members() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet()
    yield replica_set
    replica_set.stop()


@pytest.fixture(scope="module")
def served(members: ReplicaSet) -> Iterator[tuple[Process, str]]:
    """A server process and a token of the institution's feed."""
    url = members.url.replace("{name}", "fhir")
    filled = seeded(url, origin=ORIGIN)
    token = filled.token()
    filled.close()
    process = Process(f"{url}&serverSelectionTimeoutMS=500", HASTY)
    process.await_answer()
    yield process, token
    process.kill()


def asked(client: httpx.Client, token: str, method: str, address: str, sent: Any) -> httpx.Response:
    if address.startswith("/fhir"):
        headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
        return client.request(method, address, headers=headers, content=None if sent is None else json.dumps(sent))
    page = {"accept": "text/html"} if (method, address, sent) in PAGES else {}
    return client.request(method, address, headers=page, **{"params" if method == "GET" else "data": sent or None})


def asked_together(
    client: httpx.Client, token: str, askings: Iterable[tuple[str, str, Any]]
) -> list[tuple[tuple[str, str, Any], httpx.Response]]:
    """Each request with its response.  They are sent at the same time, because each waits for the database."""
    with ThreadPoolExecutor(32) as pool:
        sent = [(asking, pool.submit(asked, client, token, *asking)) for asking in askings]
        return [(asking, answer.result()) for asking, answer in sent]


def test_database_outage_returns_503_until_recovery(members: ReplicaSet, served: tuple[Process, str]) -> None:
    process, token = served
    with httpx.Client(base_url=process.address, timeout=HANG, cookies={"session": "x"}) as client:
        before = {asking[:2]: asked(client, token, *asking).status_code for asking in (*FHIR, *OAUTH, *PAGES)}
        assert all(status < 500 for status in before.values()), before
        members.members[0].kill()
        batch = ("POST", "/fhir", bundle("batch"))
        answers = asked_together(client, token, (*FHIR, *OAUTH, batch, *PAGES))
        told = answers[: len(FHIR) + len(OAUTH)]
        for asking, answer in told:
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), (asking, answer.text)
            said = answer.json()
            assert said["issue"][0]["code"] == "transient" if asking in FHIR else said["error"] == "temporarily_unavailable"
        ((_, entries), *pages) = answers[len(told) :]
        assert entries.status_code == 503 or entries.json()["entry"][0]["response"]["status"].startswith("503"), entries.text
        for asking, answer in pages:
            assert answer.status_code < 500 or (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), (asking, answer.text)
            assert answer.status_code != 503 or "text/html" in answer.headers["content-type"]
        assert client.get("/fhir/metadata").status_code == 503  # its audit line cannot be stored
        assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 503)
        members.members[0].start()
        members.await_health()
        wait_until(lambda: asked(client, token, *FHIR[4]).status_code == 201, "the process finds the server again")
        again = {asking[:2]: asked(client, token, *asking).status_code for asking in (*FHIR, *OAUTH, *PAGES)}
    for name, status in again.items():
        assert status == before[name] or {status, before[name]} <= {200, 201, 204}, (name, status, before[name])
