"""Password-setup codes for new accounts and forgotten passwords, and the operator's account commands."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from fhir_server.app import build_components
from fhir_server.cli import main
from fhir_server.settings import Settings
from fhir_server.smart import demo
from fhir_server.smart.accounts import password_codes, second_factor, sessions, users
from fhir_server.smart.accounts.password_pages import PER_ADDRESS
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients
from fhir_server.store import open_store
from tests.served import make_store
from tests.smart.environment import Page, World
from tests.smart.test_second_factor import one_time

NEW = "blue kettle four spoons"


def account(world: World) -> User:
    user = asyncio.run(users.find(world.store, "adult"))
    assert user is not None
    return user


def issued(world: World) -> str:
    return asyncio.run(password_codes.issue(world.store, account(world), world.clock()))


def choose(world: World, code: str, **fields: str) -> httpx.Response:
    page = world.http.get("/set-password")
    return world.submit(page, **({"username": "adult", "code": code, "new": NEW, "again": NEW} | fields))


def enters(world: World, password: str) -> bool:
    world.http = world.browser()
    world.sign_in(world.http.get("/sign-in", params={"next": "/signed-out"}), "adult", password)
    return asyncio.run(sessions.current(world.smart, world.http.cookies.get("session") or "")) is not None


def test_password_code_sets_a_password_once_without_signing_in(world: World) -> None:
    code = issued(world)
    assert enters(world, demo.PASSWORD)
    assert choose(world, code.lower().replace("-", " ")).status_code == 200
    assert asyncio.run(sessions.list_all(world.smart, account(world))) == []
    assert not enters(world, demo.PASSWORD)
    assert enters(world, NEW)
    assert choose(world, code, new=demo.PASSWORD, again=demo.PASSWORD).status_code == 400
    assert enters(world, NEW)


def test_concurrent_password_code_uses_succeed_once(world: World) -> None:
    code = issued(world)

    async def race() -> list[User]:
        tries = (password_codes.redeem(world.smart, "adult", code, f"{NEW} {number}") for number in range(4))
        return [user for user in await asyncio.gather(*tries) if user is not None]

    assert len(asyncio.run(race())) == 1


def test_wrong_expired_and_foreign_password_codes_get_the_same_error(world: World) -> None:
    code = issued(world)
    wrong = choose(world, "0000-0000-0000-0000-0000")
    stranger = choose(world, code, username="nobody")
    other = choose(world, code, username="parent-a")
    world.clock.forward(password_codes.LIFE)
    lapsed = choose(world, code)
    texts = {Page(page.text).text for page in (wrong, stranger, other, lapsed)}
    assert (len(texts), {page.status_code for page in (wrong, stranger, other, lapsed)}) == (1, {400})
    assert enters(world, demo.PASSWORD)


def test_new_password_code_replaces_the_previous_one(world: World) -> None:
    first, latest = issued(world), issued(world)
    assert choose(world, first).status_code == 400
    assert choose(world, latest).status_code == 200


@pytest.mark.parametrize(("new", "again"), [("password1234", "password1234"), ("short", "short"), (NEW, NEW + "x")])
def test_rejected_password_does_not_consume_the_code(world: World, new: str, again: str) -> None:
    code = issued(world)
    assert choose(world, code, new=new, again=again).status_code == 400
    assert choose(world, code).status_code == 200


def test_rejected_form_keeps_username_and_code_but_no_password(world: World) -> None:
    code = issued(world).lower()
    text = choose(world, code, again=NEW + "x").text
    assert f'value="{code}"' in text and 'value="adult"' in text
    assert NEW not in text


def test_password_reset_keeps_the_second_factor(world: World) -> None:
    seed = second_factor.new_seed()
    asyncio.run(second_factor.enroll(world.smart, account(world), seed))
    choose(world, issued(world))
    assert not enters(world, NEW)
    page = world.sign_in(world.http.get("/sign-in"), "adult", NEW)
    world.submit(page, code=one_time(seed, world.clock()))
    assert asyncio.run(sessions.current(world.smart, world.http.cookies["session"])) is not None


def test_disabled_account_cannot_set_a_password(world: World) -> None:
    code = issued(world)
    asyncio.run(users.save(world.store, msgspec.structs.replace(account(world), disabled=True)))
    assert choose(world, code).status_code == 400


def test_password_codes_are_long_and_not_stored_in_plain_text(world: World) -> None:
    codes = {issued(world) for _ in range(20)}
    kept = repr(asyncio.run(world.store.key_values.list_all("password-code", 0)))
    assert len(codes) == 20 and all(len(code.replace("-", "")) == 20 for code in codes)
    assert not [code for code in codes if code in kept or code.replace("-", "") in kept]


def test_password_code_attempts_per_ip_address_are_limited(world: World) -> None:
    for _ in range(PER_ADDRESS):
        assert choose(world, "0000", new="x", again="y").status_code == 400
    assert choose(world, issued(world)).status_code == 429


def test_csrf_set_password_form_of_another_browser_returns_403(world: World) -> None:
    fields = dict(Page(world.http.get("/set-password").text).sent) | {"username": "adult", "code": issued(world), "new": NEW, "again": NEW}
    assert world.browser().post("/set-password", data=fields).status_code == 403
    assert world.http.post("/set-password", data=fields).status_code == 200  # positive control


# operator commands


@pytest.fixture
def run(tmp_path: Path) -> object:
    environment = {"FHIR_SERVER_STORE": f"sqlite:///{tmp_path}/s.sqlite", "FHIR_SERVER_MODE": "test"}
    make_store(environment["FHIR_SERVER_STORE"])

    def invoked(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["user", *arguments], env=environment, catch_exceptions=False)

    return invoked


def stored(tmp_path: Path, job: object) -> object:
    async def at_store() -> object:
        store = open_store(f"sqlite:///{tmp_path}/s.sqlite")
        await store.prepare()
        try:
            return await job(store)  # type: ignore[operator]
        finally:
            await store.close()

    return asyncio.run(at_store())


def test_user_add_prints_a_working_password_code(run, tmp_path: Path, world: World) -> None:  # type: ignore[no-untyped-def]
    added = run("add", "pat")
    code = added.stdout.strip().splitlines()[0]
    assert (added.exit_code, len(code)) == (0, 24)

    async def chosen(store: object) -> object:
        return await password_codes.redeem(replace(world.smart, store=store), "pat", code, NEW)  # type: ignore[arg-type]

    world.clock.micros = time.time_ns() // 1000
    assert stored(tmp_path, chosen) is not None
    assert run("password-code", "pat").exit_code == 0
    assert run("password-code", "nobody").exit_code == 1


def test_a_production_server_starts_without_accounts() -> None:
    async def accounts(mode: Literal["production", "demo"]) -> int:
        made = build_components(Settings(store="memory:", mode=mode, secret_key="k" * 32))
        await made.prepare()
        return len(await users.list_all(made.store)) + len(await clients.list_all(made.store))

    assert asyncio.run(accounts("production")) == 0
    assert asyncio.run(accounts("demo")) > 5  # positive control


def test_sign_out_command_ends_sessions_of_one_account_or_all(run, tmp_path: Path, world: World) -> None:  # type: ignore[no-untyped-def]
    for name in ("pat", "sam"):
        run("add", name, "--password", NEW)
    world.clock.micros = time.time_ns() // 1000

    async def begun(store: object) -> list[str]:
        smart = replace(world.smart, store=store)  # type: ignore[arg-type]
        found = [await users.find(smart.store, name) for name in ("pat", "sam")]
        return [await sessions.start(smart, user, authenticated=smart.now()) for user in found if user]

    async def live(store: object) -> list[bool]:
        smart = replace(world.smart, store=store)  # type: ignore[arg-type]
        return [await sessions.current(smart, cookie) is not None for cookie in cookies]

    cookies = stored(tmp_path, begun)
    assert isinstance(cookies, list)
    assert stored(tmp_path, live) == [True, True]
    assert run("sign-out", "pat").exit_code == 0
    assert stored(tmp_path, live) == [False, True]
    assert run("sign-out", "--everyone").exit_code == 0
    assert stored(tmp_path, live) == [False, False]
    assert [run("sign-out").exit_code, run("sign-out", "pat", "--everyone").exit_code, run("sign-out", "nobody").exit_code] == [2, 2, 1]


def test_second_factor_command_removes_a_lost_second_factor(run, tmp_path: Path, world: World) -> None:  # type: ignore[no-untyped-def]
    run("add", "pat", "--password", NEW)

    async def enrolled(store: object) -> bool:
        smart = replace(world.smart, store=store)  # type: ignore[arg-type]
        user = await users.find(smart.store, "pat")
        assert user is not None
        before = await second_factor.find_factor(smart, user) is not None
        await second_factor.enroll(smart, user, second_factor.new_seed())
        return before

    assert stored(tmp_path, enrolled) is False
    assert stored(tmp_path, enrolled) is True
    assert run("reset-second-factor", "pat").exit_code == 0
    assert stored(tmp_path, enrolled) is False


# roles that require a second factor


@pytest.mark.parametrize(
    ("mode", "setting", "roles"),
    [
        ("production", "", {"clinician", "billing", "privacy"}),
        ("production", "nobody", set()),
        ("production", "everyone", {"patient", "clinician", "billing", "privacy"}),
        ("demo", "", set()),
        ("test", "staff", {"clinician", "billing", "privacy"}),
    ],
)
def test_second_factor_roles_follow_the_mode_and_the_setting(mode: str, setting: str, roles: set[str]) -> None:
    given = {"FHIR_SERVER_MODE": mode, **({"FHIR_SERVER_SECOND_FACTOR": setting} if setting else {})}
    assert set(Settings.from_environment(given).roles_with_second_factor) == roles
    with pytest.raises(ValueError, match="SECOND_FACTOR"):
        Settings.from_environment({"FHIR_SERVER_SECOND_FACTOR": "some"})


def test_server_applies_the_second_factor_setting() -> None:
    made = build_components(Settings(store="memory:", mode="test", second_factor="staff"))
    assert made.smart.second_factor == {"clinician", "billing", "privacy"}
    assert build_components(Settings(store="memory:", mode="test")).smart.second_factor == frozenset()
