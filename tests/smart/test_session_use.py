"""Work in an app with ``online_access`` keeps its person signed in (SMART App Launch), up to the session's greatest age."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fhir_server.smart.accounts import session_use
from fhir_server.smart.core.context import MINUTE, SECOND, SESSION_IDLE, SESSION_LIFE
from tests.smart.environment import Page
from tests.smart.full_environment import Whole

ONLINE = "openid launch/patient online_access patient/*.rs"
READ = "Patient/adult"


@pytest.fixture
def whole() -> Iterator[Whole]:
    world = Whole()
    yield world
    world.served.close()


def forward(whole: Whole, micros: int) -> None:
    whole.served.at(whole.smart.now() + micros)


def read(whole: Whole, tokens: dict[str, Any]) -> int:
    return whole.get(tokens["access_token"], READ).status


def refresh(whole: Whole, tokens: dict[str, Any]) -> int:
    answer = whole.refresh(tokens["refresh_token"])
    tokens.update(answer.json() if answer.status_code == 200 else {})
    return answer.status_code


def userinfo(whole: Whole, tokens: dict[str, Any]) -> int:
    return whole.http.get("/oauth/userinfo", headers={"Authorization": f"Bearer {tokens['access_token']}"}).status_code


def is_signed_in(whole: Whole) -> bool:
    """Asks as an app does silently, which is no use."""
    return "login_required" not in whole.authorize(prompt="none", scope="openid").headers["location"]


@pytest.mark.parametrize("use", [read, refresh, userinfo])
def test_use_of_an_app_keeps_its_person_signed_in(whole: Whole, use: Callable[[Whole, dict[str, Any]], int]) -> None:
    tokens = whole.allowed("adult", "adult", scope=ONLINE)
    for _ in range(5):
        forward(whole, SESSION_IDLE - session_use.INTERVAL)
        assert use(whole, tokens) == 200
    assert read(whole, tokens) == 200
    assert is_signed_in(whole)


def test_session_lapses_if_neither_the_site_nor_an_app_is_used(whole: Whole) -> None:
    tokens = whole.allowed("adult", "adult", scope=ONLINE)
    forward(whole, SESSION_IDLE - 1)
    assert is_signed_in(whole)  # silent requests do not keep a session open
    forward(whole, 1)
    assert (read(whole, tokens), refresh(whole, tokens), is_signed_in(whole)) == (401, 400, False)


@pytest.mark.parametrize("scope", ["openid launch/patient patient/*.rs", "openid launch/patient offline_access patient/*.rs"])
def test_use_of_an_app_without_online_access_keeps_nobody_signed_in(whole: Whole, scope: str) -> None:
    tokens = whole.allowed("adult", "adult", scope=scope)
    forward(whole, SESSION_IDLE - 1)
    assert (read(whole, tokens), userinfo(whole, tokens)) == (200, 200)
    forward(whole, 1)
    assert (read(whole, tokens), is_signed_in(whole)) == (200, False)


def test_use_of_an_app_never_passes_the_greatest_age_of_the_session(whole: Whole) -> None:
    tokens, begun = whole.allowed("adult", "adult", scope=ONLINE), whole.smart.now()
    while whole.smart.now() + 9 * MINUTE < begun + SESSION_LIFE:
        forward(whole, 9 * MINUTE)
        assert refresh(whole, tokens) == 200
    forward(whole, begun + SESSION_LIFE - whole.smart.now() - 1)
    assert read(whole, tokens) == 200
    forward(whole, 1)
    assert (read(whole, tokens), refresh(whole, tokens), is_signed_in(whole)) == (401, 400, False)


def test_use_of_an_app_revives_no_session_that_was_signed_out(whole: Whole) -> None:
    tokens = whole.allowed("adult", "adult", scope=ONLINE)
    forward(whole, 2 * MINUTE)
    page = whole.follow(whole.authorize(scope="launch/patient patient/*.rs"))
    assert whole.http.post("/sign-out", data={"token": dict(Page(page.text).sent)["token"]}).status_code == 303
    for _ in range(3):
        assert (read(whole, tokens), refresh(whole, tokens), is_signed_in(whole)) == (401, 400, False)
        forward(whole, 2 * MINUTE)


def test_use_of_an_app_is_written_once_in_a_minute(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, values, written = whole.allowed("adult", "adult", scope=ONLINE), whole.store.key_values, list[str]()
    replace = values.replace_value

    async def counted(kind: str, *args: Any) -> bool:
        written.append(kind)
        return await replace(kind, *args)

    monkeypatch.setattr(values, "replace_value", counted)
    for _ in range(5 * 60):
        forward(whole, SECOND)
        assert read(whole, tokens) == 200
    assert written == ["session-seen"] * 5
