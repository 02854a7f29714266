"""Guessing of passwords.  Limits slow an attacker and lock no user out."""

from __future__ import annotations

import asyncio

import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.attempts import PER_ACCOUNT, WINDOW
from fhir_server.smart.accounts.password_sign_in import (
    ADDRESS_INTERVAL,
    NAME_INTERVAL,
    PER_ADDRESS,
    PER_NAME,
    PER_NAME_AND_ADDRESS,
    Attempt,
    attempt,
)
from fhir_server.smart.accounts.sign_in_rate import PER_DEVICE
from fhir_server.smart.accounts.turns import Line
from fhir_server.smart.core.context import DAY, HOUR, MINUTE, SECOND
from fhir_server.store import Store, open_store
from tests.attacks.guesses import guess, tried
from tests.federation.environment import Worlds
from tests.smart.environment import Page, World
from tests.store.conftest import RunScenario, run

__all__ = ["run"]


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
