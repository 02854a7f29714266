"""The second factor at sign-in, tested through the pages.  The tests compute one-time codes as in RFC 4226 and RFC 6238."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from base64 import b32decode
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from fhir_server.smart import demo
from fhir_server.smart.accounts import attempts, second_factor, second_factor_pending, sessions, users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import MINUTE, SECOND
from fhir_server.smart.routes import router
from tests.smart.environment import Page, World

KEY = "a key that is long enough for tests of this server"
STAFF = frozenset({"clinician", "billing", "privacy"})


@pytest.fixture
def world() -> World:
    """A server that requires a second factor for work accounts."""
    world = World()
    world.smart = replace(world.smart, second_factor=STAFF, key=KEY)
    world.app = FastAPI()
    world.app.include_router(router(world.smart))
    world.http = world.browser()
    return world


def one_time(seed: bytes, at: int) -> str:
    """Return the one-time code of RFC 4226 5.3 for the time step of RFC 6238."""
    mac = hmac.new(seed, (at // SECOND // 30).to_bytes(8, "big"), hashlib.sha1).digest()
    start = mac[-1] & 15
    return f"{(int.from_bytes(mac[start : start + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def first_step(world: World, username: str = "clinician", password: str = demo.PASSWORD) -> httpx.Response:
    return world.sign_in(world.http.get("/sign-in", params={"next": "/signed-out?here"}), username, password)


def seed_on(page: httpx.Response) -> bytes:
    found = re.search(r"Key: <code>([A-Z2-7 ]+)</code>", page.text)
    assert found
    return b32decode(found[1].replace(" ", ""))


def recovery_codes(page: httpx.Response) -> list[str]:
    return re.findall(r"<li><code>([0-9A-Z-]+)</code></li>", page.text)


def set_up(world: World) -> tuple[bytes, list[str]]:
    """Sign in for the first time, and return the seed and the recovery codes."""
    page = first_step(world)
    seed = seed_on(page)
    done = world.submit(page, code=one_time(seed, world.clock()))
    assert done.status_code == 200
    world.clock.forward(MINUTE)
    world.http.cookies.clear()
    return seed, recovery_codes(done)


def signed_in(world: World) -> bool:
    return asyncio.run(sessions.current(world.smart, world.http.cookies.get("session") or "")) is not None


def account(world: World, username: str = "clinician") -> User:
    user = asyncio.run(users.find(world.store, username))
    assert user is not None
    return user


def test_one_time_codes_match_the_rfc_6238_vectors() -> None:
    # RFC 6238 appendix B, last six digits.
    seed = b"12345678901234567890"
    assert [one_time(seed, at * SECOND) for at in (59, 1111111109, 1234567890)] == ["287082", "081804", "005924"]


def test_staff_account_sets_up_second_factor_at_first_sign_in(world: World) -> None:
    page = first_step(world)
    assert "Set up two-step verification" in page.text and "<svg" in page.text
    assert not signed_in(world)
    done = world.submit(page, code=one_time(seed_on(page), world.clock()))
    assert signed_in(world)
    assert len(set(recovery_codes(done))) == second_factor.RECOVERY_CODES
    assert 'href="/signed-out?here"' in done.text


def test_enrolled_account_needs_a_code_at_each_sign_in(world: World) -> None:
    seed, _ = set_up(world)
    page = first_step(world)
    assert "<svg" not in page.text
    assert not signed_in(world)
    assert world.submit(page, code="000000").status_code == 400
    assert not signed_in(world)
    done = world.submit(page, code=one_time(seed, world.clock()))
    assert (signed_in(world), done.request.url.query) == (True, b"here")


def test_second_factor_is_optional_for_patients_until_enrolled(world: World) -> None:
    first_step(world, "adult")
    assert signed_in(world)
    seed = second_factor.new_seed()
    asyncio.run(second_factor.enroll(world.smart, account(world, "adult"), seed))
    world.http.cookies.clear()
    page = first_step(world, "adult")
    assert not signed_in(world)
    world.submit(page, code=one_time(seed, world.clock()))
    assert signed_in(world)


def test_wrong_password_does_not_reach_the_second_factor(world: World) -> None:
    set_up(world)
    assert 'name="password"' in first_step(world, password="wrong-password").text
    assert world.http.get("/sign-in/second").headers["location"] == "/sign-in"


def test_pending_second_factor_grants_no_access(world: World) -> None:
    set_up(world)
    first_step(world)
    assert 'name="password"' in world.follow(world.authorize()).text
    assert not signed_in(world)
    assert world.http.post("/sign-out", data={"token": "x"}).status_code == 403


def test_pending_second_factor_ends_by_timeout_or_account_change(world: World) -> None:
    seed, _ = set_up(world)
    page = first_step(world)
    world.clock.forward(second_factor_pending.LIFE)
    assert 'name="password"' in world.submit(page, code=one_time(seed, world.clock())).text
    page = first_step(world)
    asyncio.run(users.save(world.store, account(world)))
    assert 'name="password"' in world.submit(page, code=one_time(seed, world.clock())).text
    assert not signed_in(world)
    world.submit(first_step(world), code=one_time(seed, world.clock()))  # positive control
    assert signed_in(world)


def test_pending_second_factor_ends_with_the_completed_sign_in(world: World) -> None:
    seed, _ = set_up(world)
    page = first_step(world)
    halfway = world.http.cookies["session"]
    world.submit(page, code=one_time(seed, world.clock()))
    assert signed_in(world)
    world.http = world.browser()
    world.http.cookies.set("session", halfway)
    assert world.http.get("/sign-in/second").headers["location"] == "/sign-in"


def test_second_factor_setup_fails_once_another_is_enrolled(world: World) -> None:
    thief, page = world.browser(), first_step(world)
    mine, world.http = world.http, thief
    begun = first_step(world)
    world.http = mine
    own = seed_on(page)
    world.submit(page, code=one_time(own, world.clock()))
    assert signed_in(world)
    world.http = thief
    world.clock.forward(MINUTE)
    world.submit(begun, code=one_time(seed_on(begun), world.clock()))
    assert not signed_in(world)
    factor = asyncio.run(second_factor.find_factor(world.smart, account(world)))
    assert factor is not None and second_factor.decrypt_seed(world.smart, factor.seed) == own


def test_one_time_code_is_accepted_once_across_browsers(world: World) -> None:
    seed, _ = set_up(world)
    code = one_time(seed, world.clock())
    world.submit(first_step(world), code=code)
    assert signed_in(world)
    world.http = world.browser()
    assert world.submit(first_step(world), code=code).status_code == 400
    world.clock.forward(30 * SECOND)
    world.submit(first_step(world), code=one_time(seed, world.clock()))
    assert signed_in(world)


def test_concurrent_second_factor_code_uses_succeed_once(world: World) -> None:
    seed, recovery = set_up(world)
    user = account(world)

    async def race(code: str) -> int:
        return sum(await asyncio.gather(*(second_factor.verify_code(world.smart, user, code) for _ in range(4))))

    assert asyncio.run(race(one_time(seed, world.clock()))) == 1
    assert asyncio.run(race(recovery[0])) == 1


@pytest.mark.parametrize(("late", "fits"), [(0, True), (29, True), (39, True), (41, False), (-31, False), (90, False)])
def test_one_time_code_is_valid_for_30_seconds_plus_10(world: World, late: int, fits: bool) -> None:
    seed, _ = set_up(world)
    world.clock.forward(30 * SECOND - world.clock() % (30 * SECOND))  # the start of a time step
    shown = world.clock()
    world.clock.forward(late * SECOND + (MINUTE if late < 0 else 0))
    code = one_time(seed, shown if late >= 0 else world.clock() - late * SECOND)
    assert asyncio.run(second_factor.verify_code(world.smart, account(world), code)) == fits


def test_second_factor_guessing_locks_temporarily(world: World) -> None:
    seed, recovery = set_up(world)
    page = first_step(world)
    for guess in range(attempts.PER_ACCOUNT):
        assert world.submit(page, code=f"{guess:06}").status_code == 400
    assert world.submit(page, code=one_time(seed, world.clock())).status_code == 400
    assert world.submit(page, code=recovery[0]).status_code == 400
    assert not signed_in(world)
    world.clock.forward(attempts.WINDOW)
    world.submit(first_step(world), code=one_time(seed, world.clock()))
    assert signed_in(world)


def test_recovery_code_signs_in_once_in_any_typed_format(world: World) -> None:
    _, recovery = set_up(world)
    typed = recovery[3].lower().replace("-", " ").replace("0", "o")
    world.submit(first_step(world), code=typed)
    assert signed_in(world)
    assert asyncio.run(second_factor.count_recovery_codes(world.smart, account(world))) == second_factor.RECOVERY_CODES - 1
    world.http = world.browser()
    assert world.submit(first_step(world), code=recovery[3]).status_code == 400
    assert not signed_in(world)


def test_seeds_and_recovery_codes_are_random_and_large(world: World) -> None:
    seed, recovery = set_up(world)
    assert len(seed) * 8 == 160
    assert len({second_factor.new_seed() for _ in range(50)}) == 50
    assert all(len(code.replace("-", "")) == 24 for code in recovery)  # 24 characters from 32: 120 bits
    assert len({letter for code in recovery for letter in code}) > 20


def test_seeds_and_recovery_codes_are_not_stored_in_plain_text(world: World) -> None:
    seed, recovery = set_up(world)
    first_step(world)

    async def kept() -> str:
        kinds = ("second-factor", "recovery-code", "half-signed-in", "attempt", "one-time-code")
        return repr([await world.store.key_values.list_all(kind, 0) for kind in kinds])

    found = asyncio.run(kept())
    assert "second-factor" not in found and len(found) > 500
    assert not [code for code in recovery if code in found or code.replace("-", "") in found]
    assert seed.hex() not in found and repr(seed)[2:-1] not in found
    factor = asyncio.run(second_factor.find_factor(world.smart, account(world)))
    assert factor is not None and factor.seed != seed and second_factor.decrypt_seed(world.smart, factor.seed) == seed


def test_seed_encrypted_with_another_key_accepts_no_code(world: World) -> None:
    seed, _ = set_up(world)
    other = replace(world.smart, key="another key that is long enough for tests")
    assert not asyncio.run(second_factor.verify_code(other, account(world), one_time(seed, world.clock())))
    assert asyncio.run(second_factor.verify_code(world.smart, account(world), one_time(seed, world.clock())))


def test_pending_second_factor_stays_required_during_replacement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password alone is never enough, and old recovery codes no longer work."""
    _, old = set_up(world)
    user, secrets = account(world), world.store.key_values
    steps = []

    def watched(name: str) -> None:
        kept = getattr(secrets, name)

        async def step(*given: object, **named: object) -> object:
            done = await kept(*given, **named)
            if name != "get":
                steps.append(name)
                assert await second_factor.find_factor(world.smart, user), steps
            return done

        monkeypatch.setattr(secrets, name, step)

    for name in ("put", "pop", "delete_family"):
        watched(name)
    new = asyncio.run(second_factor.enroll(world.smart, user, second_factor.new_seed()))
    monkeypatch.undo()
    assert (
        len(steps) > second_factor.RECOVERY_CODES
        and asyncio.run(second_factor.count_recovery_codes(world.smart, user)) == second_factor.RECOVERY_CODES
    )
    assert [asyncio.run(second_factor.verify_code(world.smart, user, code)) for code in (old[0], new[0], new[0])] == [False, True, False]


def test_closing_an_account_deletes_its_second_factor(world: World) -> None:
    seed, _ = set_up(world)
    asyncio.run(users.remove(world.store, "clinician", world.clock()))
    for kind in ("second-factor", "recovery-code", "half-signed-in"):
        assert asyncio.run(world.store.key_values.list_all(kind, world.clock())) == ()
    asyncio.run(users.create(world.store, "clinician", demo.PASSWORD, "clinician"))
    page = first_step(world)
    assert "Set up two-step verification" in page.text
    assert seed_on(page) != seed


def test_csrf_second_factor_form_of_another_browser_returns_403(world: World) -> None:
    seed, _ = set_up(world)
    fields = dict(Page(first_step(world).text).sent) | {"code": one_time(seed, world.clock())}
    assert world.browser().post("/sign-in/second", data=fields).status_code == 403
    assert world.http.post("/sign-in/second", data=fields | {"token": "x"}).status_code == 403
    assert world.http.post("/sign-in/second", data=fields).status_code == 303  # positive control


def test_app_authorization_waits_for_the_second_factor(world: World) -> None:
    seed, _ = set_up(world)
    page = world.sign_in(world.follow(world.authorize(scope="openid user/*.rs", prompt="consent")), "clinician")
    assert 'name="code"' in page.text
    assert 'value="allow"' in world.submit(page, code=one_time(seed, world.clock())).text


def test_session_records_only_browser_and_system_names(world: World) -> None:
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
    page = world.http.get("/sign-in")
    world.http.post(
        "/sign-in", data=dict(Page(page.text).sent) | {"username": "adult", "password": demo.PASSWORD}, headers={"User-Agent": agent}
    )
    assert [one.browser for one in asyncio.run(sessions.list_all(world.smart, account(world, "adult")))] == ["Firefox on Windows"]
    assert asyncio.run(sessions.list_all(world.smart, account(world, "parent-a"))) == []
