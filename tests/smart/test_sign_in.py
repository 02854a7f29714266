from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest

from fhir_server.smart import demo, users
from fhir_server.smart.core import MINUTE, SESSION_IDLE, SESSION_LIFE
from fhir_server.smart.sign_in import PER_ADDRESS, PER_USER, signed_in
from fhir_server.smart.web import local_path
from tests.smart.world import ORIGIN, Page, World


def signed(response: httpx.Response) -> bool:
    return bool(Page(response.text).radios)


def guess(world: World, username: str, password: str, address: str = "10.0.0.1") -> bool:
    return asyncio.run(signed_in(world.store, username, password, address, world.clock())) is not None


def test_a_right_password_signs_in_and_a_wrong_one_does_not(world: World) -> None:
    page = world.follow(world.authorize())
    refused = world.sign_in(page, "adult", "wrong-password")
    assert refused.status_code == 400
    assert 'role="alert"' in refused.text
    assert signed(world.sign_in(refused, "Adult "))  # the spelling of the name is forgiven


@pytest.mark.parametrize("username", ["adult", "nobody", "", "x" * 5000, "\x00"])
def test_unknown_names_wrong_passwords_and_lock_outs_read_alike(world: World, username: str) -> None:
    page = world.follow(world.authorize())
    wrong = world.sign_in(page, "parent-a", "wrong-password")
    other = world.sign_in(page, username, "wrong-password")
    text = Page(wrong.text).text
    assert (other.status_code, Page(other.text).text) == (wrong.status_code, text)
    for _ in range(PER_USER):
        world.sign_in(page, username, "wrong-password")
    locked = world.sign_in(page, username, demo.PASSWORD)
    assert (locked.status_code, Page(locked.text).text) == (wrong.status_code, text)


def test_guessing_locks_an_account_for_a_quarter_of_an_hour_and_no_longer(world: World) -> None:
    assert not any(guess(world, "adult", f"guess-{number}", f"10.0.0.{number}") for number in range(PER_USER))
    assert not guess(world, "adult", demo.PASSWORD, "10.9.9.9")
    assert guess(world, "parent-a", demo.PASSWORD, "10.9.9.9")
    world.clock.forward(15 * MINUTE + 1)
    assert guess(world, "adult", demo.PASSWORD)


def test_a_right_password_gives_the_guesses_back(world: World) -> None:
    for _ in range(4):
        assert not any(guess(world, "adult", "wrong-guess") for _ in range(PER_USER - 1))
        assert guess(world, "adult", demo.PASSWORD)


def test_guessing_many_accounts_locks_the_address(world: World) -> None:
    assert not any(guess(world, f"user-{number}", "guess-guess") for number in range(PER_ADDRESS))
    assert not guess(world, "adult", demo.PASSWORD)
    assert guess(world, "adult", demo.PASSWORD, "10.9.9.9")


def test_parallel_guesses_are_counted_before_they_are_checked(world: World) -> None:
    async def race() -> int:
        passwords = ["wrong-guess"] * 9 + [demo.PASSWORD]
        tries = (signed_in(world.store, "adult", word, f"10.0.1.{n}", world.clock()) for n, word in enumerate(passwords))
        return sum(user is not None for user in await asyncio.gather(*tries))

    assert asyncio.run(race()) == 0


def test_signing_in_changes_the_cookie(world: World) -> None:
    page = world.follow(world.authorize())
    before = world.http.cookies["session"]
    world.sign_in(page, "adult")
    assert world.http.cookies["session"] != before
    other = world.browser()
    other.cookies.set("session", before)
    assert 'name="password"' in _next(world, other).text


def _next(world: World, browser: object) -> httpx.Response:
    world.http = browser  # type: ignore[assignment]
    return world.follow(world.authorize())


def test_signing_in_anew_ends_the_session_before(world: World) -> None:
    world.consent_page()
    before = world.http.cookies["session"]
    fields = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "parent-a", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).status_code == 303
    world.http.cookies.set("session", before)
    assert 'name="password"' in world.follow(world.authorize()).text


def test_a_disabled_account_cannot_sign_in(world: World) -> None:
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    assert guess(world, "adult", demo.PASSWORD)
    asyncio.run(users.save(world.store, msgspec.structs.replace(user, disabled=True)))
    assert not guess(world, "adult", demo.PASSWORD)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(world: World) -> None:
    answer = world.http.get("/sign-in")
    terms = answer.headers["set-cookie"].lower()
    assert "httponly" in terms
    assert "samesite=lax" in terms
    assert "path=/" in terms


def test_a_session_idles_out_after_ten_minutes(world: World) -> None:
    world.consent_page()
    for _ in range(3):
        world.clock.forward(SESSION_IDLE - MINUTE)
        assert signed(world.follow(world.authorize()))
    world.clock.forward(SESSION_IDLE)
    assert 'name="password"' in world.follow(world.authorize()).text


def test_a_session_ends_after_eight_hours_however_busy(world: World) -> None:
    world.consent_page()
    for _ in range(SESSION_LIFE // (9 * MINUTE)):
        world.clock.forward(9 * MINUTE)
        assert signed(world.follow(world.authorize()))
    world.clock.forward(9 * MINUTE)
    assert not signed(world.follow(world.authorize()))


def test_signing_out_ends_the_session_on_the_server(world: World) -> None:
    page = world.consent_page()
    cookie = world.http.cookies["session"]
    token = dict(Page(page.text).sent)["token"]
    gone = world.follow(world.http.post("/sign-out", data={"token": token}))
    assert "signed out" in gone.text
    world.http.cookies.set("session", cookie)
    assert 'name="password"' in world.follow(world.authorize()).text


def test_a_changed_account_ends_its_sessions(world: World) -> None:
    world.consent_page()
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    asyncio.run(users.save(world.store, user))
    assert 'name="password"' in world.follow(world.authorize()).text


@pytest.mark.parametrize("path", ["/sign-in", "/oauth/record", "/oauth/consent", "/sign-out"])
@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
def test_a_form_without_its_token_is_refused(world: World, path: str, token: str | None) -> None:
    page = world.consent_page()
    fields = {name: value for name, value in Page(page.text).sent if name != "token"}
    fields |= {"decision": "allow", "patient": "adult", "username": "adult", "password": demo.PASSWORD}
    fields |= {} if token is None else {"token": token}
    assert world.http.post(path, data=fields).status_code == 403
    assert world.submit(page, decision="allow").status_code == 302  # the control: nothing was used up


def test_a_form_token_of_another_browser_is_refused(world: World) -> None:
    page = world.consent_page()
    other = world.browser()
    other.cookies.set("session", "something-else")
    assert other.post("/oauth/consent", data=dict(Page(page.text).sent) | {"decision": "allow"}).status_code == 403


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/\tx", "/ /x\n", "///x", ""],
)
def test_a_sign_in_sends_nobody_elsewhere(world: World, target: str) -> None:
    assert local_path(target) == "/"
    page = world.http.get("/sign-in", params={"next": target})
    fields = dict(Page(page.text).sent) | {"username": "adult", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).headers["location"] == "/"


def test_a_sign_in_goes_on_to_a_page_of_ours(world: World) -> None:
    page = world.http.get("/sign-in", params={"next": "/portal/records?x=1"})
    fields = dict(Page(page.text).sent) | {"username": "adult", "password": demo.PASSWORD}
    assert world.http.post("/sign-in", data=fields).headers["location"] == "/portal/records?x=1"


def test_pages_may_not_be_framed_sniffed_stored_or_scripted(world: World) -> None:
    headers = world.http.get("/sign-in").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "no-store" in headers["cache-control"]
    assert ORIGIN.startswith("http:")


@pytest.mark.parametrize("body", [b"x=" + b"y" * 70_000, b"&".join(b"a=1" for _ in range(600))], ids=["large", "many"])
def test_a_form_too_large_is_refused_unread(world: World, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/sign-in", "/oauth/token", "/oauth/authorize"):
        assert world.http.post(path, content=body, headers=headers).status_code == 400
