"""An entry of a Bundle is what its method and URL are as a request of its own: random pairs, alone, in a batch and in a transaction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest

from fhir_server.interactions import bundle_request
from fhir_server.interactions.routing import ROUTES, Route
from tests.served import Served

BASE = "http://127.0.0.1:8000/fhir"
DRAWS = 1500
METHODS = ("GET", "GET", "HEAD", "POST", "POST", "PUT", "PUT", "DELETE", "DELETE", "PATCH")
TYPES = ("Observation", "Patient", "Flag", "Nope", "observation", "", "$export", "_history", "metadata", "Observation ")
IDS = (
    "vic1",
    "vic2",
    "adult",
    "nobody",
    "$validate",
    "$meta",
    "$meta-add",
    "_search",
    "_history",
    "$everything",
    "a/b",
    "bad id",
    "..",
    "",
)
MORE = ("", "", "", "", "", "_history/1", "_history", "$purge", "$meta", "$everything", "Observation", "x", "_history/99", "$meta-delete")
QUERIES = (
    "",
    "",
    "",
    "?",
    "?status=final",
    "?identifier=a|b",
    "?_id=vic1",
    "?_format=json",
    "?_format=xml",
    "?_format=ttl",
    "?x=y",
    "?code=%C3%A9",
    "?code=%ff",
)


class Pair:
    """One method and URL, and how the URL is written in the Bundle."""

    def __init__(self, chance: random.Random) -> None:
        self.method = chance.choice(METHODS)
        path = "/".join(part for part in (chance.choice(TYPES), chance.choice(IDS), chance.choice(MORE)) if part)
        if chance.random() < 0.2:
            path = chance.choice(TYPES)
        elif chance.random() < 0.5:
            path = f"Observation/{chance.choice(('vic1', 'vic2', 'vic3'))}"
        self.url = path + chance.choice(QUERIES)
        self.written = self._spelled(chance)
        self.id = path.split("/")[1] if path.count("/") else "vic1"
        self.type = path.split("/")[0] or "Observation"

    def _spelled(self, chance: random.Random) -> str:
        path, mark, query = self.url.partition("?")
        if ".." in path:
            return quote(path) + mark + query  # RFC 3986 removes dot segments from an absolute URL, as clients do
        path = chance.choice(
            (quote(path), quote(path), quote(path), quote(path), "/" + quote(path), quote(path) + "/", quote(path).replace("/", "//"),
             f"{BASE}/{quote(path)}", f"HTTP://127.0.0.1:8000//fhir/{quote(path)}", "".join(f"%{ord(letter):02x}" for letter in path))
        )  # fmt: skip
        return path + mark + query

    def body(self) -> dict[str, Any] | None:
        """A resource that fits the URL, if there is one that does."""
        if self.method not in ("POST", "PUT", "PATCH"):
            return None
        type = self.type if self.type in ("Observation", "Patient", "Flag") else "Observation"
        common = {"resourceType": type, "id": unquote(self.id)}
        if type == "Patient":
            return common
        return (
            common
            | {"status": "final" if type == "Observation" else "active", "code": {"text": "x"}}
            | ({} if type == "Observation" else {"subject": {"reference": "Patient/adult"}})
        )

    def __repr__(self) -> str:
        return f"{self.method} {self.url} as {self.written!r}"


class Servers:
    """Three servers with the same rows: one is asked directly, one in batches, one in transactions."""

    def __init__(self) -> None:
        self.servers = {kind: Served(seeds=False) for kind in ("alone", "batch", "transaction")}
        self.tokens = {kind: served.token() for kind, served in self.servers.items()}
        for kind, served in self.servers.items():
            for name, body in {
                "Patient/adult": {"resourceType": "Patient", "id": "adult"},
                **{
                    f"Observation/vic{n}": {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "id": f"vic{n}"}
                    for n in (1, 2)
                },
            }.items():
                assert served.request(self.tokens[kind], "PUT", name, body=body).status == 201

    def alone(self, pair: Pair) -> int:
        path, mark, query = pair.url.partition("?")
        return self.servers["alone"].request(self.tokens["alone"], pair.method, path + mark + query, body=pair.body()).status

    def bundled(self, kind: str, pair: Pair) -> int:
        entry = {"request": {"method": pair.method, "url": pair.written}} | ({"resource": pair.body()} if pair.body() else {})
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
        answer = self.servers[kind].request(self.tokens[kind], "POST", "", body=bundle)
        return int(answer.json["entry"][0]["response"]["status"]) if answer.status == 200 else answer.status

    def rows(self, kind: str) -> dict[str, int]:
        ask = self.servers[kind].get
        return {
            type: ask(self.tokens[kind], f"{type}?_summary=count").json["total"] for type in ("Observation", "Patient", "Flag", "Basic")
        }

    def close(self) -> None:
        for served in self.servers.values():
            served.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.close()


# What stands alone and is refused in a Bundle; it is never something else there.
ONLY_ALONE = ("$meta-add", "$meta-delete", "$validate", "_search", "$export", "metadata")


def differences(servers: Servers, seed: int, draws: int) -> list[str]:
    """The pairs whose entry is answered otherwise than the request alone, and kinds of Bundles that left other rows."""
    chance = random.Random(seed)
    found: list[str] = []
    seen: set[int] = set()
    for _ in range(draws):
        pair = Pair(chance)
        alone = servers.alone(pair)
        seen.add(alone)
        for kind in ("batch", "transaction"):
            status = servers.bundled(kind, pair)
            # In JSON an empty string is no value, so the search of all types has a query there.
            may_be_refused = alone >= 400 or not pair.url or any(name in pair.url for name in ONLY_ALONE)
            if status != alone and not (status == 400 and may_be_refused) and not (status == 404 and "metadata" in pair.url):
                found.append(f"{pair}: alone {alone}, in a {kind} {status}")
    assert {200, 201, 204, 400, 404, 405, 406, 410} <= seen
    return found + [kind for kind in ("batch", "transaction") if servers.rows(kind) != servers.rows("alone")]


def test_entries_are_answered_as_requests_of_their_own(servers: Servers) -> None:
    assert differences(servers, 10, DRAWS) == []


def test_comparison_finds_entries_that_skip_the_routing_table(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: of a DELETE only the first two steps of the path counted, and a POST was a create."""
    exact = bundle_request.match_route
    by_method: dict[str, Route] = {route.method: route for route in ROUTES if route.code in ("create", "update", "delete")}

    def careless(request: Any) -> Route:
        if request.method in ("POST", "DELETE") and len(request.path) >= 2:
            return by_method[request.method]
        return exact(request)

    monkeypatch.setattr(bundle_request, "match_route", careless)
    found = differences(servers, 10, 400)
    assert any("DELETE" in text for text in found) and any("POST" in text for text in found)


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("DELETE", "Observation/vic1/_history/1", 405),
        ("POST", "Observation/vic1/$nothing", 404),
        ("DELETE", "Observation?status=final", 412),
        ("DELETE", "Observation?_format=json", 400),
        ("DELETE", "Observation", 400),
        ("PUT", "Observation", 400),
        ("DELETE", "?", 405),
        ("DELETE", "Nope/x", 404),
        ("DELETE", "Observation/vic1/$purge", 404),
        ("DELETE", "Observation/vic1/x", 404),
        ("PUT", "Observation/vic1/x", 404),
        ("PUT", "http://elsewhere.example/fhir/Observation/vic1", 400),
        ("DELETE", "//elsewhere.example/Observation/vic1", 400),
        ("DELETE", "urn:Observation/vic1", 400),
        ("DELETE", "Observation/vic1#x", 400),
        ("GET", "Observation?code=a#b", 400),
        ("DELETE", "http://127.0.0.1:8000/FHIR/Observation/vic1", 404),
        ("DELETE", "http://127.0.0.1:8000/fhir/Observation%3F/vic1", 404),
    ],
)
def test_url_that_is_refused_alone_changes_nothing(servers: Servers, kind: str, method: str, url: str, status: int) -> None:
    pair = Pair(random.Random(1))
    pair.method, pair.written, pair.type, pair.id = method, url, "Observation", "vic1"
    before = servers.rows(kind)
    assert servers.bundled(kind, pair) == status
    assert servers.rows(kind) == before
    assert servers.servers[kind].get(servers.tokens[kind], "Observation/vic1").json["meta"]["versionId"] == "1"


@pytest.mark.parametrize(
    "other", ["Observation/vic2", "/Observation/vic2", "Observation//vic2", "Observation/vic%32", f"{BASE}/Observation/vic2"]
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_two_entries_write_one_row_in_no_spelling(servers: Servers, method: str, other: str) -> None:
    row = {"resourceType": "Observation", "id": "vic2", "status": "final", "code": {"text": "x"}}
    first = {"resource": row, "request": {"method": "PUT", "url": "Observation/vic2"}}
    second = {"request": {"method": method, "url": other}} | ({"resource": row} if method == "PUT" else {})
    ask = servers.servers["transaction"].request
    assert (
        ask(servers.tokens["transaction"], "POST", "", body={"resourceType": "Bundle", "type": "transaction", "entry": [second]}).status
        == 200
    )
    both = {"resourceType": "Bundle", "type": "transaction", "entry": [first, second]}
    assert ask(servers.tokens["transaction"], "POST", "", body=both).status == 400


def test_url_of_an_entry_may_hold_characters_as_they_are(servers: Servers) -> None:
    served, token = servers.servers["batch"], servers.tokens["batch"]
    served.request(token, "PUT", "Patient/u", body={"resourceType": "Patient", "id": "u", "name": [{"family": "Müller"}]})
    for url in ("Patient?name:exact=Müller", "Patient?name:exact=M%C3%BCller"):
        entry = {"request": {"method": "GET", "url": url}}
        answer = served.request(token, "POST", "", body={"resourceType": "Bundle", "type": "batch", "entry": [entry]})
        assert answer.json["entry"][0]["resource"]["total"] == 1, url


def test_head_in_a_bundle_has_no_body(servers: Servers) -> None:
    for kind in ("batch", "transaction"):
        entry = {"request": {"method": "HEAD", "url": "Patient/adult"}}
        answer = servers.servers[kind].request(
            servers.tokens[kind], "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": [entry]}
        )
        assert answer.json["entry"][0].keys() == {"response"} and answer.json["entry"][0]["response"]["status"] == "200"
