"""Attacks through the user's browser: cross-site forms, frames, caches, referrers, scripts of other origins.

The addresses are asked from the server's own routes, so a new form or page is attacked without being added here.
"""

from __future__ import annotations

import httpx
import pytest

from fhir_server.smart import demo
from tests.attacks.environment import House
from tests.portal.environment import Form, Visitor
from tests.smart.environment import Browser, Page, World

EVERYTHING = {"decision": "allow", "patient": "adult", "username": "adult", "password": demo.PASSWORD, "name": "X", "app": "x", "code": "x"}


def own_token(visitor: Visitor) -> str:
    return Form(visitor.get("/").text, "/sign-out").forms[0]["token"]


def states(house: House) -> tuple[int, ...]:
    """The number of stored records, by kind."""
    kept = vars(house.store.key_values)
    return tuple(len(repr(value)) for value in kept.values())


# CSRF


@pytest.mark.parametrize("username", ["adult", "clinician"])
def test_csrf_form_without_own_token_returns_403_and_changes_nothing(house: House, username: str) -> None:
    visitor, stranger = house.signed_in(username), house.signed_in("parent-a")
    tokens = (None, "", "wrong", "é", own_token(stranger))
    before = states(house)
    for path in house.forms():
        for token in tokens:
            answer = visitor.browser.post(path, data=EVERYTHING | ({} if token is None else {"token": token}))
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
    assert states(house) == before
    own = own_token(visitor)
    for path in [*sorted(set(house.forms()) - {"/sign-out", "/sign-in"}), "/sign-in", "/sign-out"]:
        assert "Go back and open the page again" not in visitor.browser.post(path, data={"token": own}).text, path  # the control


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_csrf_cross_site_fetch_metadata_returns_403_despite_token(house: House, site: str) -> None:
    """With a planted cookie whose form token the attacker can compute."""
    visitor = house.signed_in("adult")
    own = own_token(visitor)
    for path in house.forms():
        answer = visitor.browser.post(path, data={"token": own}, headers={"Sec-Fetch-Site": site})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
    answer = visitor.browser.post("/sign-out", data={"token": own}, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303


def test_csrf_get_requests_do_not_submit_forms(house: House) -> None:
    visitor = house.signed_in("adult")
    fields = EVERYTHING | {"token": own_token(visitor)}
    before = len(house.stored("Consent"))
    for path in house.forms():
        answer = visitor.browser.get(path, params=fields)
        assert answer.status_code in (200, 303, 400, 403, 404, 405), path
        assert "/oauth/" not in answer.headers.get("location", "") or "code=" not in answer.headers["location"]
    assert own_token(visitor)  # still signed in
    assert len(house.stored("Consent")) == before


@pytest.mark.parametrize("held", [True, False])
def test_login_csrf_sign_in_form_of_another_browser_returns_403(world: World, held: bool) -> None:
    """The victim's browser submits a sign-in as the attacker, with the attacker's form token."""
    attacker, victim = world.browser(), world.browser()
    fields = dict(Page(attacker.get("/sign-in").text).sent) | {"username": "parent-a", "password": demo.PASSWORD}
    if held:
        victim.get("/sign-in")
    answer = victim.post("/sign-in", data=fields)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert attacker.post("/sign-in", data=fields).status_code == 303  # the control


# clickjacking, caches, referrers: every page in every state


def _walked(world: World) -> list[httpx.Response]:
    """The pages of an authorization, errors included."""
    sign_in = world.follow(world.authorize())
    wrong = world.sign_in(sign_in, "adult", "wrong-password")
    picker = world.sign_in(wrong, "adult")
    unpicked = world.submit(picker, patient="nobody")
    consent = world.submit(picker, patient="adult")
    nothing = world.http.post("/oauth/consent", data={**dict(Page(consent.text).sent), "decision": "allow", "scope": "", "listed": "yes"})
    faulty = world.authorize(client_id="nobody")
    stale = world.http.get("/oauth/continue?request=gone")
    forged = world.http.post("/oauth/consent", data={"decision": "allow"})
    none = world.follow(world.http.get("/sign-in"))
    return [sign_in, wrong, picker, unpicked, consent, nothing, faulty, stale, forged, none]


def _shown(house: House) -> list[tuple[str, httpx.Response]]:
    found = []
    for username in (None, "adult", "parent-a", "clinician"):
        visitor = house.signed_in(username) if username else house.visitor()
        found += [(path, visitor.browser.get(path)) for path in (*house.pages(), *house.forms())]
        found += [(path, visitor.browser.post(path, data={"x": "y"})) for path in house.forms()]
        if username == "adult":
            found.append(("a code", visitor.share()))
    return [(path, answer) for path, answer in found if answer.headers.get("content-type", "").startswith("text/html")]


def _check_page(path: str, answer: httpx.Response) -> None:
    policy = {
        part.strip().partition(" ")[0]: part.strip().partition(" ")[2] for part in answer.headers["content-security-policy"].split(";")
    }
    assert policy["default-src"] == "'none'", path
    assert policy["frame-ancestors"] == "'none'", path
    assert policy["base-uri"] == "'none'", path
    assert policy["form-action"].startswith("'self'"), path
    assert {policy.get(name, "'none'") for name in ("script-src", "object-src", "connect-src", "frame-src")} == {"'none'"}, path
    assert "unsafe" not in answer.headers["content-security-policy"], path
    assert answer.headers["x-frame-options"] == "DENY", path
    assert answer.headers["x-content-type-options"] == "nosniff", path
    assert answer.headers["referrer-policy"] == "no-referrer", path
    assert "no-store" in answer.headers["cache-control"], path
    assert "<script" not in answer.text.lower(), path
    assert "access-control-allow-origin" not in answer.headers, path


def test_clickjacking_cache_and_referrer_headers_cover_oauth_pages(world: World) -> None:
    pages = _walked(world)
    assert {page.status_code for page in pages} == {200, 400, 403}
    for page in pages:
        _check_page(str(page.url), page)


def test_clickjacking_cache_and_referrer_headers_cover_other_pages(house: House) -> None:
    shown = _shown(house)
    assert {path for path, answer in shown if answer.status_code == 200} >= {
        "/",
        "/apps",
        "/sharing",
        "/accept",
        "/ehr",
        "/links",
        "a code",
    }
    for path, answer in shown:
        _check_page(path, answer)


def test_cache_headers_forbid_storing_codes_and_tokens(world: World) -> None:
    back = world.submit(world.consent_page(), decision="allow")
    code = back.headers["location"].partition("code=")[2].partition("&")[0]
    tokens = world.exchange(code)
    refreshed = world.refresh(tokens.json()["refresh_token"])
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"]}
    registered = world.http.post("/oauth/register", json=metadata)
    form = dict(Page(world.http.get("/register-app").text).sent) | {
        "name": "Lung diary",
        "redirects": "https://a.example/",
        "method": "none",
    }
    page = world.http.post("/register-app", data=form | {"scope": "patient/*.rs"})
    introspected = world.post("/oauth/introspect", ("demo-confidential", demo.SECRET), token=refreshed.json()["access_token"])
    answers = [
        back,
        tokens,
        refreshed,
        registered,
        page,
        introspected,
        world.exchange("bogus"),
        world.http.post("/oauth/token", content=b"x"),
    ]
    assert [a.status_code for a in answers] == [303, 200, 200, 201, 200, 200, 400, 400]
    for answer in answers:
        assert "no-store" in answer.headers["cache-control"], answer.url
        assert "no-cache" in answer.headers["pragma"], answer.url
    assert back.headers["referrer-policy"] == page.headers["referrer-policy"] == "no-referrer"


SCRIPT = "\"'><script>alert(1)</script>"
SAID = (
    *("next", "request", "username", "state", "code", "iss", "error", "error_description", "client_id", "redirect_uri", "scope", "aud"),
    *("patient", "name", "redirects", "homepage", "invitation", "app", "consent", "relationship", "level", "encounter"),
)


@pytest.mark.parametrize("username", [None, "adult", "clinician"])
def test_script_injection_is_escaped_or_omitted_on_every_page(house: House, username: str | None) -> None:
    visitor = house.signed_in(username) if username else house.visitor()
    token = own_token(visitor) if username else dict(Page(visitor.get("/sign-in").text).sent)["token"]
    fields = dict.fromkeys(SAID, SCRIPT)
    shown = ""
    for path in sorted(set(house.pages()) | set(house.forms()) - {"/sign-out"}):
        answers = [visitor.browser.get(path, params=fields), visitor.browser.post(path, data=fields | {"token": token})]
        for answer in answers:
            assert "<script" not in answer.text or not answer.headers["content-type"].startswith("text/html"), path
            shown += answer.text
    assert "&lt;script&gt;" in shown or username  # the control: the sign-in page shows a name again


# other origins' scripts


def test_cors_forbids_credentials_everywhere_and_reading_of_pages(house: House) -> None:
    visitor = house.signed_in("adult")
    asked = {"Origin": "https://evil.example"}
    preflight = asked | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    open_to_all = set()
    for path in (*house.pages(), "/fhir/metadata", "/fhir/.well-known/smart-configuration", "/fhir/Patient/adult", "/oauth/token"):
        answers = [visitor.browser.get(path, headers=asked), visitor.browser.request("OPTIONS", path, headers=preflight)]
        answers += [visitor.browser.post(path, data={}, headers=asked)]
        for answer in answers:
            assert "access-control-allow-credentials" not in answer.headers, path
            assert answer.headers.get("access-control-allow-origin", "*") == "*", path
            if "access-control-allow-origin" in answer.headers:
                open_to_all.add(path)
    assert open_to_all >= {"/fhir/metadata", "/oauth/token", "/oauth/jwks"}  # the control
    assert not open_to_all & {path for path, _ in _shown(house)}


def test_cors_readable_endpoints_ignore_the_session_cookie(house: House) -> None:
    visitor = house.signed_in("adult")
    assert visitor.get("/apps").status_code == 200  # the control
    assert visitor.get("/fhir/Patient/adult").status_code == 401
    assert visitor.browser.post("/oauth/introspect", data={"token": "x"}).status_code == 401


# huge bodies


@pytest.mark.parametrize("body", [b"x=" + b"y" * 70_000, b"&".join(b"a=1" for _ in range(600))], ids=["large", "many"])
def test_huge_bodies_of_forms_are_refused(house: House, body: bytes) -> None:
    visitor = house.signed_in("adult")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in (*house.forms(), "/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/authorize"):
        assert visitor.browser.post(path, content=body, headers=headers).status_code in (400, 403, 413), path
        assert visitor.browser.post(path, content=b"token=x", headers=headers).status_code in (303, 400, 401, 403), path  # is read


def test_huge_bodies_of_registrations_and_records_are_refused(house: House) -> None:
    browser = Browser(house.app)
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "none"}
    assert browser.post("/oauth/register", json=metadata | {"tos_uri": "x" * 70_000}).status_code == 400
    assert browser.post("/oauth/register", json=metadata).status_code == 201
    token = {"Authorization": f"Bearer {house.token('adult', 'adult', scope='patient/*.cruds')}", "Content-Type": "application/fhir+json"}
    assert browser.post("/fhir/Observation", content=b" " * (house.made.settings.max_body_bytes + 1), headers=token).status_code == 413
