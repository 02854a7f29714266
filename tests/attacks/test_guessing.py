"""Guessing of passwords, codes and secrets, and account enumeration.  Limits slow an attacker and lock no user out for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import KeySet

from fhir_server.smart import demo
from fhir_server.smart.accounts import password_codes, password_sign_in, users
from fhir_server.smart.accounts.attempts import PER_ACCOUNT, WINDOW
from fhir_server.smart.accounts.password_sign_in import (
    ADDRESS_INTERVAL,
    NAME_INTERVAL,
    PER_ADDRESS,
    PER_NAME,
    PER_NAME_AND_ADDRESS,
    Attempt,
    attempt,
    check_password_sign_in,
)
from fhir_server.smart.accounts.sign_in_rate import PER_DEVICE
from fhir_server.smart.accounts.turns import Line
from fhir_server.smart.authorize.endpoint import PER_ADDRESS as REQUESTS
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.jwks_cache import MIN_REFETCH_INTERVAL, JwksCache
from fhir_server.smart.clients.registration_routes import MAX_REGISTRATIONS_PER_HOUR
from fhir_server.smart.core.context import DAY, HOUR, MINUTE, SECOND
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.federation.pages import PER_ADDRESS as DEPARTURES
from fhir_server.smart.tokens.failure_limit import MAX_FAILURES
from fhir_server.store import Store, open_store
from fhir_server.web import public_fetch
from tests.attacks.environment import House
from tests.federation.environment import FEDERATED, Worlds
from tests.smart.environment import ASSERTION_TYPE, ORIGIN, Browser, Page, World
from tests.smart.jwks_server import Site
from tests.store.conftest import RunScenario, run
from tests.waiting import HANG, until

__all__ = ["run"]

CONFIDENTIAL = ("demo-confidential", demo.SECRET)


def guess(world: World, username: str, password: str, address: str = "10.0.0.1", device: str = "") -> bool:
    return asyncio.run(check_password_sign_in(world.store, username, password, address, world.clock(), device)) is not None


def tried(world: World, browser: Browser, username: str, password: str) -> bool:
    """Whether this browser can sign in."""
    fields = dict(Page(browser.get("/sign-in").text).sent) | {"username": username, "password": password}
    return browser.post("/sign-in", data=fields).status_code == 303


# passwords


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of attempts without the cost of their hashes."""

    async def matches(user: users.User | None, password: str) -> bool:
        return user is not None and password == demo.PASSWORD

    monkeypatch.setattr(password_sign_in, "matches_password", matches)


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


def test_password_guessing_is_slow_but_the_right_password_passes(world: World, quick: None) -> None:
    """From everywhere: one attacker, another browser at the same address, and another address where nobody signed in before."""
    victim, guesses, day = "adult", 0, world.clock() + DAY
    while world.clock() < day:
        tried_now = asyncio.run(attempt(world.store, victim, f"guess-{guesses}", "10.0.0.1", world.clock(), "", "attacker"))
        guesses += not tried_now.wait
        world.clock.forward(tried_now.wait)
    assert DAY // NAME_INTERVAL <= guesses <= DAY // NAME_INTERVAL + PER_NAME_AND_ADDRESS + 1
    assert guess(world, victim, demo.PASSWORD, "10.9.9.9")
    for number in range(PER_NAME_AND_ADDRESS):
        assert not guess(world, victim, f"guess-{number}", "10.0.0.1")


@pytest.mark.parametrize("attackers", [1, 2])
def test_password_guessing_at_the_victims_address_ends_in_a_turn(world: World, quick: None, attackers: int) -> None:
    """The browser is new, the address is that of the attackers, and they ask all the time."""
    waited, start = -1, world.clock()
    for number in range(PER_NAME_AND_ADDRESS + attackers):
        assert not guess(world, "adult", f"guess-{number}", "10.0.0.1")
    while waited:
        for attacker in range(attackers):
            asyncio.run(attempt(world.store, "adult", "guess", "10.0.0.1", world.clock(), "", f"attacker {attacker}"))
        own = asyncio.run(attempt(world.store, "adult", demo.PASSWORD, "10.0.0.1", world.clock(), "", "victim"))
        waited = own.wait
        world.clock.forward(min(waited, 7 * SECOND))
    assert own.user is not None
    assert world.clock() - start <= (attackers + 2) * NAME_INTERVAL


def test_password_guessing_from_many_addresses_has_a_limit_by_day(world: World, quick: None) -> None:
    """And somebody who signs in where nobody has before waits a turn for each address of the attack."""
    addresses = [f"10.0.{number}.1" for number in range(6)]

    async def a_day() -> int:
        seen, end = 0, world.clock() + DAY - HOUR  # what is free is counted over a day
        while world.clock() < end:
            for address in addresses:
                seen += not (await attempt(world.store, "adult", "guess", address, world.clock(), "", "attacker")).wait
            world.clock.forward(MINUTE)
        return seen

    seen = asyncio.run(a_day())
    assert DAY // NAME_INTERVAL * 0.9 <= seen <= DAY // NAME_INTERVAL + PER_NAME
    first = asyncio.run(attempt(world.store, "adult", demo.PASSWORD, "10.9.9.9", world.clock(), "", "victim"))
    assert 0 < first.wait <= (len(addresses) + 1) * NAME_INTERVAL
    world.clock.forward(first.wait)
    for address in addresses:  # they cannot take the turn
        for _ in range(2):
            asyncio.run(attempt(world.store, "adult", "guess", address, world.clock(), "", "attacker"))
    assert asyncio.run(attempt(world.store, "adult", demo.PASSWORD, "10.9.9.9", world.clock(), "", "victim")).user is not None


def test_password_guessing_unseen_attempts_tell_nothing(world: World) -> None:
    """Until its turn comes, the right password is answered as a wrong one."""
    for number in range(PER_NAME_AND_ADDRESS + 1):
        assert not guess(world, "adult", f"guess-{number}")
    right, wrong = (
        asyncio.run(attempt(world.store, "adult", word, "10.0.0.1", world.clock(), "", "attacker")) for word in (demo.PASSWORD, "wrong")
    )
    assert right == wrong and right.wait


def test_password_guessing_count_resets_after_correct_password(world: World) -> None:
    for _ in range(4):
        assert not any(guess(world, "adult", "wrong-guess") for _ in range(PER_NAME_AND_ADDRESS - 1))
        assert guess(world, "adult", demo.PASSWORD)


def test_password_guessing_on_many_names_does_not_lock_a_house_out(world: World, quick: None) -> None:
    """Who has signed in from there passes at once, in a new browser too; anybody else when the turn comes."""
    assert guess(world, "parent-a", demo.PASSWORD)
    tried_names = 0
    for number in range(PER_ADDRESS + 4):
        tried_names += not asyncio.run(attempt(world.store, f"user-{number}", "x", "10.0.0.1", world.clock(), "", f"b{number}")).wait
    assert tried_names == PER_ADDRESS + 1  # the limit, and the turn of this moment
    assert guess(world, "parent-a", demo.PASSWORD)
    stranger = asyncio.run(attempt(world.store, "adult", demo.PASSWORD, "10.0.0.1", world.clock(), "", "new"))
    assert 0 < stranger.wait <= 5 * ADDRESS_INTERVAL
    world.clock.forward(stranger.wait)
    assert asyncio.run(attempt(world.store, "adult", demo.PASSWORD, "10.0.0.1", world.clock(), "", "new")).user is not None
    assert guess(world, "adult", demo.PASSWORD, "10.9.9.9")


def test_password_guessing_on_many_names_is_slow(world: World, quick: None) -> None:
    """Also on names for which attempts wait for a turn of their own."""

    async def an_hour(names: int) -> int:
        guesses, asked, end = 0, 0, world.clock() + HOUR
        while world.clock() < end:
            tried_now = await attempt(world.store, f"user-{asked % names}", "x", "10.0.0.1", world.clock(), "", "attacker")
            guesses, asked = guesses + (not tried_now.wait), asked + 1
            world.clock.forward(SECOND)
        return guesses

    assert asyncio.run(an_hour(100_000)) <= 5 * PER_ADDRESS + HOUR // ADDRESS_INTERVAL
    world.clock.forward(DAY)
    assert asyncio.run(an_hour(40)) <= 5 * PER_ADDRESS + HOUR // ADDRESS_INTERVAL


def test_password_guessing_is_counted_per_ipv6_64_network(world: World) -> None:
    """An attacker with one IPv6 address has all 2^64 of its network."""
    for number in range(PER_ADDRESS + 1):
        assert not guess(world, f"somebody-{number}", "wrong", f"2001:db8:1:2::{number:x}:1")
    assert not guess(world, "adult", demo.PASSWORD, "2001:db8:1:2:ffff::5")
    assert guess(world, "adult", demo.PASSWORD, "2001:db8:1:3::1")  # the controls: another IPv6 network, and single IPv4 addresses
    for number in range(PER_ADDRESS + 1):
        assert not guess(world, f"anybody-{number}", "wrong", f"::ffff:192.0.2.{number}")
    assert guess(world, "adult", demo.PASSWORD, "::ffff:192.0.2.99")


def test_flood_limit_counts_an_ipv6_64_network_as_one_address() -> None:
    limit, values = RateLimit("a limit", 3, MINUTE), open_store("memory:").key_values
    values.now = lambda: 0

    def taken(*addresses: str) -> list[int]:
        return [asyncio.run(limit.take(values, address, 0)) for address in addresses]

    assert taken(*(f"2001:db8::{number}" for number in range(1, 6))) == [0, 0, 0, MINUTE, MINUTE]
    assert retry_after(MINUTE) == {"Retry-After": "60"}
    assert taken(*(f"192.0.2.{number}" for number in range(1, 9))) == [0] * 8  # the controls
    assert taken("2001:db8:0:1::1", "::ffff:198.51.100.7", "") == [0] * 3


def test_password_guessing_in_parallel_is_counted_before_checking(world: World, quick: None) -> None:
    """Of many attempts at one moment, the free ones and one turn are looked at."""

    async def race() -> int:
        tries = (attempt(world.store, "adult", "wrong", f"10.0.1.{n}", world.clock(), "", f"browser {n}") for n in range(3 * PER_NAME))
        return sum(not one.wait for one in await asyncio.gather(*tries))

    assert asyncio.run(race()) == PER_NAME + 1


def test_password_guessing_does_not_lock_out_known_devices(world: World, quick: None) -> None:
    """The attack continues from many addresses, also the victim's.  A known device of the victim still works."""
    own = world.browser()
    assert tried(world, own, "adult", demo.PASSWORD)
    for round in range(3):
        for number in range(PER_ADDRESS):
            assert not guess(world, "adult", f"guess-{round}-{number}", "127.0.0.1")
        assert not tried(world, world.browser(), "adult", demo.PASSWORD)  # the control: in other browsers one waits
        assert tried(world, own, "adult", demo.PASSWORD)
        world.clock.forward(WINDOW)


def test_password_guessing_flood_does_not_keep_a_known_device_out(world: World, quick: None) -> None:
    own, attacker = world.browser(), world.browser()
    assert tried(world, own, "adult", demo.PASSWORD)
    fields = dict(Page(attacker.get("/sign-in").text).sent)
    while attacker.post("/sign-in", data=fields | {"username": "nobody", "password": "x"}).text.find("Too many sign-ins") < 0:
        pass
    assert not tried(world, world.browser(), "adult", demo.PASSWORD)
    assert tried(world, own, "adult", demo.PASSWORD)
    for _ in range(2 * PER_DEVICE):
        refused = not tried(world, own, "adult", demo.PASSWORD)
    assert refused


def test_password_guessing_on_a_known_device_is_limited_per_person(world: World) -> None:
    family = world.browser()
    for username in ("adult", "parent-a"):
        assert tried(world, family, username, demo.PASSWORD)
    for number in range(2 * PER_ACCOUNT + 1):
        assert not tried(world, family, "adult", f"guess-{number}")
    assert not tried(world, family, "adult", demo.PASSWORD)
    assert tried(world, family, "parent-a", demo.PASSWORD)


@pytest.mark.parametrize("device", ["", "made-up", "x" * 4000])
def test_password_guessing_with_forged_device_cookie_is_limited(world: World, device: str) -> None:
    for number in range(PER_NAME_AND_ADDRESS + 1):
        assert not guess(world, "adult", f"guess-{number}", "10.0.0.1", device)
    assert not guess(world, "adult", demo.PASSWORD, "10.0.0.1", device)


def test_password_guessing_on_another_persons_device_is_limited(world: World) -> None:
    mine = world.browser()
    assert tried(world, mine, "parent-a", demo.PASSWORD)
    for number in range(PER_NAME_AND_ADDRESS + 1):
        assert not tried(world, mine, "adult", f"guess-{number}")
    assert not tried(world, mine, "adult", demo.PASSWORD)


def test_password_guessing_limit_ignores_forged_forwarding_headers(world: World) -> None:
    """Forwarding headers count only from a proxy that the operator trusts."""
    fields = dict(Page(world.http.get("/sign-in").text).sent)
    for number in range(PER_ADDRESS + 1):
        said = {"X-Forwarded-For": f"10.1.1.{number}", "X-Real-IP": f"10.1.1.{number}", "Forwarded": f"for=10.1.1.{number}"}
        form = fields | {"username": f"user-{number}", "password": "guess-guess"}
        assert world.http.post("/sign-in", data=form, headers=said).status_code == 400
    assert not tried(world, world.browser(), "adult", demo.PASSWORD)
    world.clock.forward(WINDOW)
    assert tried(world, world.browser(), "adult", demo.PASSWORD)  # the control


def test_password_guessing_turns_are_shared_by_all_processes(run: RunScenario) -> None:
    """Of two servers that ask at the same moment, one gives the turn, and each browser's turn is taken once."""

    async def scenario(store: Store) -> None:
        store.key_values.now = lambda: now
        now, lines = 1_000, [Line("user x", 100, 3), Line("user x", 100, 3)]
        first = await asyncio.gather(*(lines[n % 2].take(store.key_values, f"10.0.0.{n}", "b", now) for n in range(6)))
        assert sorted(first) == [0, 100, 200, 300, 400, 500]
        now = 1_500
        again = await asyncio.gather(*(lines[n % 2].take(store.key_values, "10.0.0.1", "b", now) for n in range(6)))
        assert again.count(0) <= 2  # its own turn, and that of this moment
        assert await lines[0].take(store.key_values, "10.0.0.9", "c", now) >= 100

    run(scenario)


def test_password_guessing_ends_in_a_turn_on_every_store(run: RunScenario, quick: None) -> None:
    """Attempts at one moment, at the victim's address and elsewhere; the victim's browser is new."""

    async def scenario(store: Store) -> None:
        now = 10**15
        store.key_values.now = lambda: now
        await users.create(store, "victim", demo.PASSWORD, "patient", patient="p")

        async def guessed(browser: str, address: str = "10.0.0.1", password: str = "guess") -> Attempt:
            return await attempt(store, "victim", password, address, now, "", browser)

        attack = [await guessed("attacker") for _ in range(PER_NAME_AND_ADDRESS + 2)]
        assert [one.wait for one in attack] == [0] * (PER_NAME_AND_ADDRESS + 1) + [NAME_INTERVAL]
        waiting = await guessed("victim", password=demo.PASSWORD)
        assert (waiting.user, waiting.wait) == (None, 2 * NAME_INTERVAL)
        assert (await guessed("other", "10.9.9.9", demo.PASSWORD)).user is not None
        now += waiting.wait
        raced = await asyncio.gather(*(guessed("victim", password=demo.PASSWORD) for _ in range(4)), guessed("attacker"))
        assert [one for one in raced if one.user]

    run(scenario)


def test_password_guessing_browsers_of_an_address_wait_for_few_turns() -> None:
    values, line = open_store("memory:").key_values, Line("user x", 100, 3)
    values.now = lambda: 0
    waits = [asyncio.run(line.take(values, "10.0.0.1", f"browser {n}", 0)) for n in range(30)]
    assert waits == [0, 100, 200, 300, *[100] * 26]  # the others have no turn, and may ask again
    assert asyncio.run(line.take(values, "10.0.0.2", "b", 0)) == 400


def test_password_guessing_a_federated_sign_in_marks_the_browser() -> None:
    worlds = Worlds()
    assert worlds.signed_in().status_code == 303
    assert "device" in worlds.ours.http.cookies


# account enumeration


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
    """Only the operator creates accounts; registration is for apps."""
    paths = {*house.paths("GET"), *house.paths("POST"), *house.paths("PUT")}
    assert {"/sign-in", "/register-app"} <= paths  # the control
    assert {path for path in paths if "register" in path} == {"/register-app", "/oauth/register", "/oauth/register/{client_id}"}
    words = ("recover", "reset", "forgot", "sign-up", "signup", "join", "password", "username", "available", "account")
    stranger = Browser(house.app)
    token = dict(Page(stranger.get("/sign-in").text).sent)["token"]
    for path in sorted(path for path in paths - {"/set-password"} if any(word in path for word in words)):
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


# secrets of apps


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_client_secret_guessing_returns_429_per_ip_for_one_minute(world: World, path: str) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x"}
    statuses = [world.http.post(path, data=form, auth=(CONFIDENTIAL[0], f"guess-{n}")).status_code for n in range(MAX_FAILURES)]
    assert set(statuses) == {401}
    slowed = world.http.post(path, data=form, auth=CONFIDENTIAL)
    assert (slowed.status_code, slowed.headers["retry-after"], slowed.json()["error"]) == (429, "60", "temporarily_unavailable")
    assert _elsewhere(world, path, form).status_code != 429, "the app itself is at another address"
    world.clock.forward(MINUTE)
    assert world.http.post(path, data=form, auth=CONFIDENTIAL).status_code in (200, 400)


def _elsewhere(world: World, path: str, form: dict[str, str]) -> httpx.Response:
    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(world.app, client=("10.9.9.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.post(path, data=form, auth=CONFIDENTIAL)

    return asyncio.run(sent())


def test_client_secret_guessing_limit_ignores_valid_credentials(world: World) -> None:
    for _ in range(MAX_FAILURES + 1):
        assert world.post("/oauth/introspect", CONFIDENTIAL, token="garbage").json() == {"active": False}
    assert world.post("/oauth/token", CONFIDENTIAL, grant_type="refresh_token", refresh_token="x").status_code == 400


@pytest.mark.parametrize("header", ["Bearer x", "Bearer ", "Basic eDp4", ""])
def test_introspection_guessing_without_credentials_returns_401(world: World, header: str) -> None:
    token = world.tokens()["access_token"]
    answer = world.http.post("/oauth/introspect", data={"token": token}, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert "active" not in answer.text
    assert world.post("/oauth/introspect", CONFIDENTIAL, token=token).json()["active"] is True


# other limits


def test_initial_access_token_guessing_returns_identical_401(world: World) -> None:
    object.__setattr__(world.smart, "mode", "production")
    metadata = {"client_name": "Heart diary", "redirect_uris": ["https://app.example/cb"]}
    answers = [world.http.post("/oauth/register", json=metadata, headers={"Authorization": f"Bearer guess{n}"}) for n in range(5)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, world.http.post("/oauth/register", json=metadata).text)}
    assert len(asyncio.run(clients.list_all(world.store))) == len(demo.CLIENTS)


def test_flood_of_authorization_requests_returns_temporary_429(world: World) -> None:
    answers = [world.authorize().status_code for _ in range(REQUESTS)]
    assert set(answers) == {303}
    world.clock.forward(MINUTE // 2)
    refused = world.authorize()
    assert (refused.status_code, "location" in refused.headers, refused.headers["retry-after"]) == (429, False, "30")
    kept = len(asyncio.run(world.store.key_values.list_all("request", world.clock())))
    assert kept == REQUESTS
    world.clock.forward(MINUTE // 2)
    assert world.authorize().status_code == 303


def test_flood_of_sign_ins_returns_temporary_429(world: World, quick: None) -> None:
    """Over the rate no password is looked at, whosever turn it is."""
    form = dict(Page(world.http.get("/sign-in").text).sent) | {"username": "nobody", "password": "x"}
    answers = [world.http.post("/sign-in", data=form) for _ in range(REQUESTS)]
    assert not [answer for answer in answers if "Too many sign-ins" in answer.text]
    refused = world.http.post("/sign-in", data=form)
    assert (refused.status_code, "Too many sign-ins" in refused.text, refused.headers["retry-after"]) == (429, True, "60")
    world.clock.forward(MINUTE)
    assert tried(world, world.browser(), "adult", demo.PASSWORD)


def test_flood_of_registrations_returns_temporary_429(world: World) -> None:
    for number in range(MAX_REGISTRATIONS_PER_HOUR):
        name = f"Diary {chr(97 + number % 26)}{chr(97 + number // 26)} {number}"
        metadata = {"client_name": name, "redirect_uris": ["https://app.example/cb"]}
        assert world.http.post("/oauth/register", json=metadata).status_code == 201
    refused = world.http.post("/oauth/register", json=metadata)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    form = dict(Page(world.http.get("/register-app").text).sent) | {"name": "One more", "redirects": "https://a.example/", "method": "none"}
    page = world.http.post("/register-app", data=form)
    assert (page.status_code, page.headers["retry-after"]) == (429, "3600")
    world.clock.forward(HOUR)
    assert world.http.post("/register-app", data=form | {"scope": "patient/*.rs"}).status_code == 200


def test_flood_of_provider_redirects_returns_temporary_429(worlds: Worlds) -> None:
    """Each stores a record and sends a request to the provider, so the server must not be used to flood it."""
    worlds.ours.http.get("/sign-in")
    path = f"/sign-in/with/{FEDERATED['north'].id}"
    assert {worlds.ours.http.get(path).status_code for _ in range(DEPARTURES)} == {303}
    asked = len(worlds.wire.calls)
    refused = worlds.ours.http.get(path)
    assert (refused.status_code, refused.headers["retry-after"], len(worlds.wire.calls)) == (429, "60", asked)
    worlds.clock.forward(60 * SECOND)
    assert worlds.ours.http.get(path).status_code == 303


def test_flood_of_assertions_with_slow_jwks_blocks_no_other_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty concurrent requests of a client whose server does not answer do not delay sign-ins and refreshes."""
    world, given_up = site.world, asyncio.Event()
    asked: list[str] = []
    wanting: list[str] = []
    keys = JwksCache.keys

    async def silent(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        await given_up.wait()
        return ()

    async def counted(self: JwksCache, url: str, kid: str) -> KeySet:
        wanting.append(kid)
        return await keys(self, url, kid)

    monkeypatch.setattr(JwksCache, "keys", counted)
    monkeypatch.setattr(public_fetch, "DEADLINE", HANG)  # the test decides when the wait is over
    object.__setattr__(world.smart, "network", public_fetch.Network(silent))
    assertions = [world.assertion(jti=f"flood-{number}") for number in range(60)]
    forms = [{"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": one} for one in assertions]
    token = world.tokens()["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "demo-public"}

    async def flooded() -> tuple[int, int, set[int]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN) as client:
            flood = [asyncio.create_task(client.post("/oauth/token", data=form)) for form in forms]
            await until(lambda: len(wanting) == len(forms), "every assertion waits for the keys")
            answer = await asyncio.wait_for(client.post("/oauth/token", data=refresh), HANG)
            waiting = sum(not one.done() for one in flood)
            given_up.set()
            return answer.status_code, waiting, {one.status_code for one in await asyncio.gather(*flood)}

    status, waiting, refused = asyncio.run(flooded())
    assert (status, waiting, refused) == (200, len(forms), {400})  # the honest app waited for none of them
    assert len(asked) == 1  # one wait for all of them, not one after the other
    Site(world)
    world.clock.forward(MIN_REFETCH_INTERVAL)
    assert world.backend(world.assertion(jti="after")).status_code == 200  # the control
