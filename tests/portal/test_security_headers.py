"""Security headers of every response of the server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from fhir_server import linking, portal
from fhir_server.app import application
from fhir_server.root_app import RootApp
from fhir_server.settings import Settings
from fhir_server.smart import routes
from fhir_server.web.security_headers import security_headers
from tests.served import Answer, Served, call

HTTPS = "https://records.example"
# method and path of a page, a redirect, the style and logo, OAuth's documents and refusals, the API's answers and refusals
ANSWERS = [
    ("GET", "/sign-in", 200),
    ("GET", "/", 200),
    ("GET", "/apps", 303),
    ("GET", "/static/style.css", 200),
    ("GET", "/static/logo.svg", 200),
    ("GET", "/portal.css", 200),
    ("GET", "/oauth/jwks", 200),
    ("POST", "/oauth/token", 400),
    ("OPTIONS", "/oauth/token", 204),
    ("GET", "/oauth/authorize", 400),
    ("GET", "/nothing-here", 404),
    ("DELETE", "/sign-in", 405),
    ("TRACE", "/sign-in", 405),
    ("GET", "/fhir/metadata", 200),
    ("GET", "/fhir/Patient/adult", 401),
    ("TRACE", "/fhir/Patient/adult", 405),
    ("OPTIONS", "/fhir/Patient", 204),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served(seeds=False, origin=HTTPS)
    yield served
    served.close()


@pytest.fixture(scope="module")
def origin(served: Served) -> RootApp:
    pages = FastAPI()
    made = served.parts
    for router in (routes.router(made.smart), portal.router(made.smart, made.service, served.api.ask), linking.router(made.smart)):
        pages.include_router(router)
    return RootApp(served.api, pages, served.settings.origin)


def asked(served: Served, origin: RootApp, method: str, path: str) -> Answer:
    return served.run(call(origin, method, path, b"", {"content-type": "application/x-www-form-urlencoded"}, b""))


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_response_has_the_security_headers(served: Served, origin: RootApp, method: str, path: str, status: int) -> None:
    answer = asked(served, origin, method, path)
    policy = answer.headers["content-security-policy"].split("; ")
    assert answer.status == status
    assert {"default-src 'none'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not [directive for directive in policy if directive.startswith("script-src") or "unsafe" in directive]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200), ("/metrics", 401)])
def test_answers_to_the_operator_have_the_security_headers(served: Served, path: str, status: int) -> None:
    whole = application(Settings(store="memory:", mode="test", origin=HTTPS, metrics_token="a token for the metrics"))
    answer = asked(served, whole, "GET", path)
    assert answer.status == status and set(security_headers(HTTPS)) <= {(n.encode(), v.encode()) for n, v in answer.headers.items()}


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_non_page_responses_are_sandboxed_and_text_has_a_charset(
    served: Served, origin: RootApp, method: str, path: str, status: int
) -> None:
    answer = asked(served, origin, method, path)
    page = answer.headers.get("content-type", "").startswith("text/html")
    assert ("sandbox" in answer.headers["content-security-policy"].split("; ")) == (not page)
    assert not answer.body or answer.headers["content-type"]
    if re.match(r"text/|[^;]*\+?xml|application/fhir\+json", answer.headers.get("content-type", "")):
        assert "charset=utf-8" in answer.headers["content-type"]


def test_only_static_files_allow_cross_origin_embedding(served: Served, origin: RootApp) -> None:
    open_ = [p for m, p, _ in ANSWERS if asked(served, origin, m, p).headers["cross-origin-resource-policy"] != "same-origin"]
    assert open_ == ["/static/style.css", "/static/logo.svg"]


def test_portal_isolates_its_opener_and_sign_in_page_does_not(served: Served, origin: RootApp) -> None:
    assert asked(served, origin, "GET", "/").headers["cross-origin-opener-policy"] == "same-origin"
    assert "cross-origin-opener-policy" not in asked(served, origin, "GET", "/sign-in").headers


def test_pages_send_no_cors_headers(served: Served, origin: RootApp) -> None:
    found = {p: "access-control-allow-origin" in asked(served, origin, m, p).headers for m, p, _ in ANSWERS}
    assert not any(found[path] for path in ("/sign-in", "/", "/apps", "/oauth/authorize"))
    assert found["/oauth/token"] and found["/fhir/metadata"]  # the control


def test_http_origin_sends_no_hsts_header(served: Served) -> None:
    plain = application(Settings(store="memory:", mode="test"))
    assert "strict-transport-security" not in asked(served, plain, "GET", "/nothing-here").headers
    assert asked(served, plain, "GET", "/nothing-here").headers["x-content-type-options"] == "nosniff"
    assert asked(served, application(Settings(store="memory:", mode="test", origin=HTTPS)), "GET", "/").headers["strict-transport-security"]


def test_server_does_not_redirect_http_to_https(served: Served, origin: RootApp) -> None:
    # The request below says it came by http although the origin is https: it is answered or refused as it is.
    for method, path, status in ANSWERS:
        answer = asked(served, origin, method, path)
        assert answer.status == status and not answer.headers.get("location", "").startswith("https:")


@pytest.mark.parametrize(
    ("origin", "mode", "refused"),
    [
        ("http://records.example", "production", True),
        ("https://records.example", "production", False),
        ("http://127.0.0.1:8000", "production", False),
        ("http://localhost:8000", "production", False),
        ("http://127.0.0.1.evil.example", "production", True),
        ("http://records.example", "demo", False),
    ],
)
def test_production_origin_requires_https_or_loopback(origin: str, mode: str, refused: bool) -> None:
    given = {"FHIR_SERVER_ORIGIN": origin, "FHIR_SERVER_MODE": mode}
    if refused:
        with pytest.raises(ValueError, match="https"):
            Settings.from_environment(given)
    else:
        assert Settings.from_environment(given).origin == origin
