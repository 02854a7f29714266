"""OPTIONS and HEAD of every route, and the CORS headers that apps in a browser need (RFC 9110, section 9.3; Fetch, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fhir_server.interactions.patch import ACCEPT_PATCH
from fhir_server.interactions.routing import ROUTES
from tests.seeded import seeded
from tests.served import Served

NAMES = {"{type}": "Observation", "{compartment}": "Patient", "{member}": "Observation", "{version}": "1", "{id}": "adult"}
PATHS = sorted({"/".join(NAMES.get(part, "x") if part[0] == "{" else part for part in route.shape) for route in ROUTES})
SENT = {
    "Authorization", "DPoP", "Content-Type", "Content-Encoding", "Accept", "Prefer", "If-Match", "If-None-Match", "If-None-Exist",
    "If-Modified-Since", "If-Unmodified-Since", "X-Provenance", "X-Security-Context",
}  # fmt: skip
READ = {
    "ETag", "Location", "Content-Location", "Last-Modified", "Preference-Applied", "Retry-After", "Accept-Patch", "Allow",
    "Content-Disposition", "X-Security-Context", "WWW-Authenticate",
}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = seeded()
    yield server
    server.close()


def listed(text: str) -> set[str]:
    return {item.strip() for item in text.split(",")}


@pytest.mark.parametrize("path", [*PATHS, "metadata", ".well-known/smart-configuration"])
def test_options_names_the_methods_that_the_path_takes(served: Served, path: str) -> None:
    answer = served.request(None, "OPTIONS", path, headers={"origin": "https://app.example", "access-control-request-method": "GET"})
    assert (answer.status, answer.body) == (204, b"")
    allowed = listed(answer.headers["allow"])
    assert allowed == listed(answer.headers["access-control-allow-methods"])
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        asked = served.request(served.token(), method, path, headers={"prefer": "respond-async"})
        assert (asked.status != 405) == (method in allowed), (method, asked.body)
        if asked.status == 405:
            assert listed(asked.headers["allow"]) == allowed
    assert ("accept-patch" in answer.headers) == ("PATCH" in allowed)


def test_the_methods_are_those_of_the_routing_table(served: Served) -> None:
    """The control of the test above: the walk meets every method."""
    met = {method for path in PATHS for method in listed(served.request(None, "OPTIONS", path).headers["allow"])}
    assert met == {route.method for route in ROUTES} | {"HEAD", "OPTIONS"}
    assert served.request(None, "OPTIONS", "Observation/x").headers["accept-patch"].encode() == ACCEPT_PATCH[1]


@pytest.mark.parametrize("path", [*PATHS, "metadata", "Nothing/at/all"])
def test_a_script_may_send_and_read_the_headers_that_clients_use(served: Served, path: str) -> None:
    preflight = served.request(None, "OPTIONS", path, headers={"origin": "https://app.example"})
    assert preflight.headers["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in preflight.headers
    assert listed(preflight.headers["access-control-allow-headers"]) >= SENT
    answer = served.get(served.token(), path, origin="https://app.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert listed(answer.headers["access-control-expose-headers"]) >= READ


def test_a_script_gets_to_know_that_a_url_does_not_exist(served: Served) -> None:
    preflight = served.request(None, "OPTIONS", "Nothing/at/all")
    assert (preflight.status, preflight.headers["allow"]) == (204, "OPTIONS")
    assert {"GET", "PATCH", "DELETE"} <= listed(preflight.headers["access-control-allow-methods"])


@pytest.mark.parametrize("accepted", ["", "gzip"])
@pytest.mark.parametrize("path", [path for path in PATHS if "$" not in path or "$everything" in path] + ["metadata"])
def test_head_has_the_headers_of_get_and_no_body(served: Served, path: str, accepted: str) -> None:
    sent, token = {"accept-encoding": accepted}, served.token()
    got, head = (served.request(token, method, path, headers=sent) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers == got.headers
