"""Token, scope and interaction are decided from the head of a request, before its body is read or parsed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fhir_server.interactions.routing import ROUTES
from tests.seeded import seeded
from tests.served import Answer, Served

_FORM = "application/x-www-form-urlencoded"
_NAMED = {"{type}": "Observation", "{compartment}": "Patient", "{member}": "Observation"}
_PATHS = [
    (route.method, "/".join(_NAMED.get(part, "x") if part[0] == "{" else part for part in route.shape), route.body)
    for route in ROUTES
    if route.body
] + [("POST", "", "bundle")]
_BODYLESS = [
    (route.method, "/".join(_NAMED.get(part, "x") if part[0] == "{" else part for part in route.shape))
    for route in ROUTES
    if not route.body
]
# what each kind of request with a body needs; exports need no scope of their own
_SCOPED = [(method, path, body) for method, path, body in _PATHS if path and "$export" not in path]
# scopes that do not cover the request
_LACKING = {
    "$import": ("system/*.rds", "system/Patient.r"),
    "_search": ("system/Patient.cru", "system/Observation.r"),
    "Patient/x/$everything": ("system/Observation.cruds", "system/Patient.cuds"),
    "Patient/$everything": ("system/Observation.cruds", "system/Patient.cuds"),
    "Patient/x/$summary": ("system/Observation.cruds", "system/Patient.cuds"),
    "Patient/x/$health-cards-issue": ("system/Immunization.cruds", "system/Patient.rs"),
    "Patient/$match": ("system/Observation.cruds", "system/Patient.crud"),
    "Observation/$validate": ("system/Patient.cruds", "system/Condition.r"),
    "Observation/x/$validate": ("system/Patient.cruds", "system/Condition.r"),
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded(max_body_bytes=4000, max_resource_bytes=2000)
    yield server
    server.close()


def good_token(served: Served, path: str) -> str:
    """A token of whoever may ask there."""
    return served.app_token("adult", "adult") if "health-cards" in path else served.token()


class Body:
    """A body that arrives in parts, and counts how many of them the server has taken."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.taken = parts, 0

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": self.taken < len(self.parts)}


def send(served: Served, method: str, path: str, body: Body, headers: Mapping[str, str], query: bytes = b"") -> Answer:
    sent: list[Any] = []

    async def collect(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/" + path, "query_string": query, "headers": raw}
    served.run(served.api(scope, body.receive, collect))
    return Answer(
        sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, b"".join(m.get("body", b"") for m in sent)
    )


def bearer(token: str, kind: str = "resource") -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": _FORM if kind == "form" else "application/fhir+json"}


@pytest.mark.parametrize(("method", "path", "kind"), _PATHS)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer nope"}, {"authorization": "Basic eDp5"}])
def test_nothing_of_a_body_is_read_without_a_good_token(served: Served, method: str, path: str, kind: str, headers: dict[str, str]) -> None:
    body = Body(b"{")
    answer = send(served, method, path, body, {**headers, "content-type": "text/plain", "content-length": "100000000"})
    assert (answer.status, body.taken) == (401, 0)


@pytest.mark.parametrize(("method", "path", "kind"), _PATHS)
def test_with_a_good_token_the_same_body_is_read(served: Served, method: str, path: str, kind: str) -> None:
    body = Body(b"{", b"")
    answer = send(served, method, path, body, {**bearer(good_token(served, path), kind), "prefer": "respond-async"})
    assert body.taken == 2 and answer.status in (400, 404, 200, 202), answer.body


@pytest.mark.parametrize(("method", "path", "kind"), _SCOPED)
def test_nothing_of_a_body_is_read_without_the_scope(served: Served, method: str, path: str, kind: str) -> None:
    for scope in _LACKING.get(path, ("system/Patient.cruds", "system/Observation.r")):
        body = Body(b"{")
        answer = send(served, method, path, body, bearer(served.token(scope=scope), kind))
        assert (answer.status, body.taken) == (403, 0), answer.body


@pytest.mark.parametrize(("method", "path"), _BODYLESS)
def test_parameters_are_judged_only_after_the_token(served: Served, method: str, path: str) -> None:
    for query in (b"colour=red", b"_count=x", b""):
        assert send(served, method, path, Body(), {"prefer": "respond-async"}, query).status == 401


def test_nothing_of_a_body_is_read_if_the_policy_refuses_the_write(served: Served) -> None:
    body = Body(b"{")
    token = served.app_token("adult", "adult")
    answer = send(served, "POST", "Encounter", body, bearer(token))
    assert (answer.status, body.taken) == (403, 0), answer.body


@pytest.mark.parametrize("query", [b"%ff", b"&".join([b"_id=x"] * 301)])
def test_a_bad_query_is_refused_only_after_the_token(served: Served, query: bytes) -> None:
    for method, path in (("GET", "Patient"), ("GET", "Patient/adult"), ("POST", "Observation")):
        assert send(served, method, path, Body(b"{}"), {}, query).status == 401
        assert send(served, method, path, Body(b"{}"), bearer(served.token()), query).status == 400


@pytest.mark.parametrize(("method", "path", "kind"), _PATHS)
def test_a_declared_length_over_the_limit_is_refused_unread(served: Served, method: str, path: str, kind: str) -> None:
    size = {"bundle": 4000}.get(kind, 2000)
    body = Body(b"{")
    answer = send(served, method, path, body, {**bearer(good_token(served, path), kind), "content-length": str(size + 1)})
    assert (answer.status, body.taken) == (413, 0)
    assert f"larger than {size} bytes, the limit for a" in answer.json["issue"][0]["diagnostics"]


@pytest.mark.parametrize(("method", "path", "kind"), _PATHS)
def test_an_undeclared_length_is_read_up_to_the_limit(served: Served, method: str, path: str, kind: str) -> None:
    size = {"bundle": 4000}.get(kind, 2000)
    body = Body(*[b" " * 500] * 20)
    assert send(served, method, path, body, bearer(good_token(served, path), kind)).status == 413
    assert body.taken == size // 500 + 1


def test_a_body_that_ends_early_is_refused(served: Served) -> None:
    class Broken(Body):
        async def receive(self) -> dict[str, Any]:
            return {"type": "http.disconnect"} if self.taken else await super().receive()

    assert send(served, "POST", "Observation", Broken(b"{", b"}"), bearer(served.token())).status == 400


@pytest.mark.parametrize(("levels", "status"), [(99, 201), (100, 400), (400, 400), (100_000, 400)])
def test_a_body_may_nest_up_to_the_limit(levels: int, status: int) -> None:
    server = Served(seeds=False)
    inner: Any = '{"url":"http://example.org/x","valueString":"x"}'
    # each level of extensions is an array and an object
    text = '{"resourceType":"Basic","code":{"text":"x"},"extension":['
    text += '{"url":"http://example.org/x","extension":[' * (levels - 1) + inner + "]}" * (levels - 1) + "]}"
    answer = server.request(server.token(), "POST", "Basic", body=text.encode())
    server.close()
    assert answer.status == status, answer.body
    if status == 400:
        assert "deeper than 200 levels" in json.loads(answer.body)["issue"][0]["diagnostics"]


def test_a_write_after_a_body_that_was_waited_for_resolves_the_caller_again(served: Served) -> None:
    """A token that is revoked while the body is on its way writes nothing."""
    token = served.token()
    key_values = served.parts.store.key_values

    class Revoking(Body):
        async def receive(self) -> dict[str, Any]:
            for key, _ in await key_values.list_all("access", 0):
                await key_values.pop("access", key, 0)
            await key_values.delete_family("any")  # counts as a revocation
            return await super().receive()

    text = json.dumps({"resourceType": "Basic", "code": {"text": "x"}}).encode()
    assert send(served, "POST", "Basic", Body(text[:9], text[9:]), bearer(token)).status == 201
    assert send(served, "POST", "Basic", Revoking(text[:9], text[9:]), bearer(token)).status == 401
