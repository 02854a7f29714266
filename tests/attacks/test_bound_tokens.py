"""Tokens that are bound to a key (DPoP, RFC 9449 11): stolen, replayed, downgraded, at every door of the FHIR API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.smart.dpop_helpers import Prover
from tests.smart.environment import BASE, ORIGIN, SCOPE, Browser, World
from tests.smart.full_environment import Whole

BATCH = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/adult"}}] * 2}
OBSERVATION = {"resourceType": "Observation"}
DOORS: list[tuple[str, str, Any]] = [
    ("GET", "/Patient/adult", None),
    ("HEAD", "/Patient/adult", None),
    ("GET", "/Observation?_count=1", None),
    ("POST", "/Observation/_search", None),
    ("GET", "/Patient/adult/_history", None),
    ("GET", "/Patient/adult/$everything", None),
    ("POST", "", BATCH),
    ("POST", "", BATCH | {"type": "transaction"}),
    ("POST", "/Observation", OBSERVATION),
    ("PUT", "/Observation/x", OBSERVATION | {"id": "x"}),
    ("DELETE", "/Observation/x", None),
    ("GET", "/AuditEvent", None),
    ("GET", "/Patient/$export", None),
    ("GET", "/$export-status/x", None),
    ("GET", "/Observation?a=%zz", None),
]


_ALWAYS = {"Content-Type": "application/fhir+json"}
_LATER = {"Prefer": "respond-async"}  # what an export needs


class Bound:
    """An app with a bound token of ``adult``, and a thief who has the token but not the key."""

    def __init__(self, whole: Whole) -> None:
        self.whole, self.prover = whole, Prover(whole)
        self.token = str(self.prover.tokens(scope=SCOPE.replace("patient/*.rs", "patient/*.cruds"))["access_token"])

    def send(
        self, method: str, path: str, body: Any = None, *, scheme: str = "DPoP", proof: str | None = "", token: str = ""
    ) -> httpx.Response:
        token = token or self.token
        proof = self.prover.proof(BASE + path.partition("?")[0], method, token) if proof == "" else proof
        headers = {"Authorization": f"{scheme} {token}"} | ({"DPoP": proof} if proof else {})
        content = None if body is None else json.dumps(body).encode()
        return self.whole.http.request(
            method, f"/fhir{path}", content=content, headers=headers | _ALWAYS | (_LATER if "$export" in path else {})
        )

    def as_bearer(self) -> str:
        """A token of the same grant's scopes that is not bound."""
        return str(self.whole.tokens()["access_token"])


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    made = Whole()
    yield made
    made.served.close()


@pytest.fixture(scope="module")
def bound(whole: Whole) -> Bound:
    return Bound(whole)


@pytest.mark.parametrize(("method", "path", "body"), DOORS)
def test_bound_token_opens_no_door_without_its_key(bound: Bound, method: str, path: str, body: Any) -> None:
    thief = Prover(bound.whole).proof(BASE + path.partition("?")[0], method, bound.token)
    assert bound.send(method, path, body, scheme="Bearer", proof=None).status_code == 401  # downgraded
    assert bound.send(method, path, body, scheme="Bearer").status_code == 401
    assert bound.send(method, path, body, proof=None).status_code == 401
    assert bound.send(method, path, body, proof=thief).status_code == 401
    assert bound.send(method, path, body).status_code != 401  # the control


def test_bound_token_reads_what_its_person_may_see(bound: Bound) -> None:
    assert bound.send("GET", "/Patient/adult").json()["id"] == "adult"
    entries = bound.send("POST", "", BATCH).json()["entry"]
    assert [entry["response"]["status"][:3] for entry in entries] == ["200", "200"]


def test_bound_token_is_refused_by_doors_for_bearers(whole: Whole, bound: Bound) -> None:
    own = {"Authorization": f"Bearer {bound.token}"}
    assert whole.http.post("/oauth/introspect", data={"token": bound.token}, headers=own).status_code == 401
    assert whole.http.get("/oauth/userinfo", headers=own).status_code == 401
    assert whole.http.get("/oauth/userinfo", headers={"Authorization": f"DPoP {bound.token}"}).status_code == 401
    assert bound.prover.userinfo(bound.token).status_code == 200  # the control


def test_dpop_proof_replay_is_refused(bound: Bound) -> None:
    proof = bound.prover.proof(f"{BASE}/Patient/adult", "GET", bound.token)
    assert bound.send("GET", "/Patient/adult", proof=proof).status_code == 200
    again = bound.send("GET", "/Patient/adult", proof=proof)
    assert (again.status_code, 'error="invalid_dpop_proof"' in again.headers["www-authenticate"]) == (401, True)


def test_dpop_proof_replay_at_the_token_endpoint_is_refused(world: World) -> None:
    prover = Prover(world)
    proof = prover.proof()
    assert prover.exchange(world.code(), proof).status_code == 200
    assert prover.exchange(world.code(), proof).json()["error"] == "invalid_dpop_proof"


def test_dpop_proof_replay_in_parallel_has_one_winner(world: World) -> None:
    prover = Prover(world)
    proof, codes = prover.proof(), [world.code() for _ in range(4)]

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(world.app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            from fhir_server.smart import demo
            from tests.smart.environment import VERIFIER

            fields = {
                "grant_type": "authorization_code",
                "redirect_uri": demo.REDIRECT,
                "code_verifier": VERIFIER,
                "client_id": "demo-public",
            }
            sent = [client.post("/oauth/token", data=fields | {"code": code}, headers={"DPoP": proof}) for code in codes]
            return sorted(answer.status_code for answer in await asyncio.gather(*sent))

    assert asyncio.run(all_at_once()) == [200, 400, 400, 400]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"url": f"{BASE}/Patient/teen"},
        {"url": "https://elsewhere.example/fhir/Patient/adult"},
        {"token": "another"},
        {"ath": None},
        {"nonce": None},
        {"nonce": "made-up"},
    ],
)
def test_dpop_proof_of_another_request_is_refused(bound: Bound, changes: dict[str, Any]) -> None:
    asked = {"url": f"{BASE}/Patient/adult", "method": "GET", "token": bound.token} | changes
    answer = bound.send("GET", "/Patient/adult", proof=bound.prover.proof(**asked))
    assert answer.status_code == 401
    assert answer.headers["dpop-nonce"]
    assert "DPoP-Nonce" in answer.headers["access-control-expose-headers"]


def test_dpop_scheme_does_not_take_a_bearer_token(bound: Bound) -> None:
    """A thief of a bearer token cannot make it look bound to the thief's own key (RFC 9449 7.1)."""
    token = bound.as_bearer()
    assert bound.send("GET", "/Patient/adult", token=token).status_code == 401
    assert bound.send("GET", "/Patient/adult", token=token, scheme="Bearer").status_code == 200
    assert bound.send("GET", "/Patient/adult", token=token, scheme="Bearer", proof=None).status_code == 200
    assert bound.prover.userinfo(token).status_code == 401


def test_dpop_proofs_of_strangers_are_not_stored(whole: Whole, bound: Bound) -> None:
    def stored() -> int:
        return len(whole.served.run(whole.store.key_values.list_all("dpop-proof", whole.clock())))

    before = stored()
    for token in ("made-up", bound.as_bearer()):
        assert bound.send("GET", "/Patient/adult", token=token).status_code == 401
    assert stored() == before
    bound.send("GET", "/Patient/adult")
    assert stored() == before + 1  # the control


def test_dpop_preflight_allows_the_header(bound: Bound) -> None:
    for path in ("/fhir/Patient/adult", "/oauth/token", "/oauth/userinfo"):
        assert "DPoP" in Browser(bound.whole.app).request("OPTIONS", path).headers["access-control-allow-headers"]  # type: ignore[arg-type]
