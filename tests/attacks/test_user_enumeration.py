"""Finding out which accounts exist, by answers, costs and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import password_codes, users
from fhir_server.smart.accounts.password_sign_in import (
    PER_ADDRESS,
    PER_NAME_AND_ADDRESS,
    attempt,
)
from fhir_server.smart.core.context import DAY, SECOND
from tests.attacks.environment import House
from tests.attacks.guesses import guess
from tests.smart.environment import Browser, Page, World


@pytest.mark.parametrize("username", ["adult", "nobody", "", "x" * 5000, "\x00"])
def test_user_enumeration_sign_in_failures_return_identical_pages(world: World, quick: None, username: str) -> None:
    """Also when attempts wait for their turn: as many are free for every name, and the wait is as long."""

    def answers(name: str) -> list[tuple[int, str, str | None]]:
        browser = world.browser()
        told = []
        for number in range(PER_NAME_AND_ADDRESS + 4):
            fields = dict(Page(browser.get("/sign-in").text).sent) | {"username": name, "password": f"wrong-{number}"}
            answer = browser.post("/sign-in", data=fields)
            told.append((answer.status_code, Page(answer.text).text, answer.headers.get("retry-after")))
            world.clock.forward(SECOND)
        world.clock.forward(DAY)
        return told

    known = answers("parent-a")
    assert answers(username) == known
    assert {status for status, _, _ in known} == {400, 429}


def test_user_enumeration_does_not_tell_who_signed_in_at_an_address(world: World, quick: None) -> None:
    """Where one has signed in before, the attempts of others at that address do not count, but nobody can see that."""

    def waits(name: str) -> list[int]:
        found = []
        for number in range(PER_NAME_AND_ADDRESS + 3):
            found.append(asyncio.run(attempt(world.store, name, f"guess-{number}", "10.0.0.1", world.clock(), "", "attacker")).wait)
        return found

    assert guess(world, "adult", demo.PASSWORD)
    for number in range(PER_ADDRESS):
        assert not guess(world, f"user-{number}", "guess-guess")
    told = waits("adult")
    world.clock.forward(DAY)
    for number in range(PER_ADDRESS):
        assert not guess(world, f"user-{number}", "guess-guess")
    assert waits("nobody") == told


def test_user_enumeration_by_timing_each_attempt_hashes_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, unknown, disabled and locked accounts cost the same work."""
    asyncio.run(users.matches_password(None, "x"))  # computes the dummy hash once
    counted: list[str] = []
    verify: Callable[[str, str], bool] = users._verify
    monkeypatch.setattr(users, "_verify", lambda hashed, password: counted.append(hashed) or verify(hashed, password))
    found = asyncio.run(users.find(world.store, "parent-b"))
    assert found is not None
    asyncio.run(users.save(world.store, msgspec.structs.replace(found, disabled=True)))
    for number, username in enumerate(["adult", "nobody", "parent-b", "", "adult", *["parent-a"] * (PER_NAME_AND_ADDRESS + 3)], start=1):
        guess(world, username, "wrong-password", "10.0.0.1")
        assert len(counted) == number
    guess(world, "adult", demo.PASSWORD)
    assert len(counted) == number + 1
    assert len({hashed.rpartition("$")[0].rpartition("$")[0] for hashed in counted}) == 1  # and under the same parameters


def test_user_enumeration_at_set_password_sees_equal_text_and_cost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a code of another account, and for a rejected password, with or without an issued code."""
    found = asyncio.run(users.find(world.store, "parent-b"))
    adult = asyncio.run(users.find(world.store, "adult"))
    assert found is not None and adult is not None
    asyncio.run(users.save(world.store, msgspec.structs.replace(found, disabled=True)))
    code = asyncio.run(password_codes.issue(world.store, adult, world.clock()))
    worked: list[str] = []
    for name in ("_verify", "hash_password"):
        monkeypatch.setattr(users, name, _counting(getattr(users, name), worked))
    form = dict(Page(world.http.get("/set-password").text).sent)
    told = set()
    for username in ("adult", "parent-a", "parent-b", "nobody"):
        for wrong, new in (("AAAA-AAAA-AAAA-AAAA-AAAA", "A quite new one 7"), (code if username != "adult" else "x", "short")):
            answer = world.http.post("/set-password", data=form | {"username": username, "code": wrong, "new": new, "again": new})
            told.add((answer.status_code, answer.text.replace(f'value="{username}"', "").replace(f'value="{wrong}"', "")))
    assert len(told) == 1 and worked == []
    sound = form | {"username": "adult", "code": code, "new": "A quite new one 7", "again": "A quite new one 7"}
    assert world.http.post("/set-password", data=sound).status_code == 200  # the control
    assert worked


def _counting(work: Callable[..., Any], worked: list[str]) -> Callable[..., Any]:
    def counted(*given: Any) -> Any:
        worked.append(work.__name__)
        return work(*given)

    return counted


def test_user_enumeration_finds_no_sign_up_or_public_account_form(house: House) -> None:
    """Accounts are the operator's, or opened with a code of the office (tests/portal/test_join.py); registration is for apps."""
    paths = {*house.paths("GET"), *house.paths("POST"), *house.paths("PUT")}
    assert {"/sign-in", "/register-app"} <= paths  # the control
    assert {path for path in paths if "register" in path} == {"/register-app", "/oauth/register", "/oauth/register/{client_id}"}
    words = ("recover", "reset", "forgot", "sign-up", "signup", "join", "password", "username", "available", "account")
    stranger = Browser(house.app)
    token = dict(Page(stranger.get("/sign-in").text).sent)["token"]
    for path in sorted(path for path in paths - {"/set-password", "/join"} if any(word in path for word in words)):
        for username in ("adult", "nobody"):
            fields = {"token": token, "username": username, "password": "x", "new": "y"}
            asked = (stranger.get(path, params=fields), stranger.post(path, data=fields))
            for answer in asked:
                away = answer.headers.get("location", "")
                led_back = away == "/account" and path.startswith("/account/")  # to a page that requires sign-in
                assert answer.status_code == 405 or away.startswith("/sign-in?") or led_back, path


@pytest.mark.parametrize("username", ["adult", "nobody", "clinician"])
def test_user_enumeration_sign_in_page_is_same_for_every_username(world: World, username: str) -> None:
    page = world.http.get("/sign-in", params={"username": username})
    again = world.http.get("/sign-in", params={"username": "somebody"})
    assert page.text.replace(username, "somebody") == again.text


def test_user_enumeration_at_activation_sees_one_error_page(house: House) -> None:
    visitor = house.signed_in("proxy-full")
    one = visitor.send("/accept", "/accept", code="AAAA-AAAA-AAAA-AAAA-AAAA")
    two = visitor.send("/accept", "/accept", code="adult")
    assert (one.status_code, Page(one.text).text) == (two.status_code, Page(two.text).text) and one.status_code == 400
