"""Back-Channel Logout 1.0: what a client is sent when a session ends, and the queue from which it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.smart.core import logout_queue
from fhir_server.smart.core.context import DAY, HOUR, MINUTE, SECOND, SESSION_IDLE, SESSION_LIFE
from fhir_server.smart.tokens import back_channel
from tests.operation.running import running
from tests.smart.back_channel_helpers import BACK, CHANNEL, Receiver, tell
from tests.smart.environment import ORIGIN, Page, World, claims_of
from tests.smart.openid_helpers import set_options
from tests.waiting import until


@pytest.fixture
def signed_in(world: World) -> str:
    """The id_token of an app that has registered for logout, in a browser with that session."""
    set_options(world, post_logout_redirect_uris=(BACK,), backchannel_logout_uri=CHANNEL)
    return str(world.tokens()["id_token"])


def queued(world: World) -> list[logout_queue.Notice]:
    return asyncio.run(logout_queue.due_notices(world.store, world.clock() + DAY, 1000))


def logout(world: World, **parameters: str) -> httpx.Response:
    return world.follow(world.http.get("/oauth/logout", params=parameters))


@pytest.mark.parametrize("how", ["sign-out", "app", "sign-in"])
def test_back_channel_2_4_every_sign_out_sends_a_logout_token(world: World, signed_in: str, how: str) -> None:
    receiver = Receiver(world)
    if how == "app":
        logout(world, id_token_hint=signed_in)
    elif how == "sign-in":  # it ends the browser's earlier session
        assert world.sign_in(world.http.get("/sign-in"), "adult").status_code != 400
    else:
        page = world.follow(world.authorize())
        token = page.text.partition('action="/sign-out"')[2].partition('name="token" value="')[2].partition('"')[0]
        assert world.http.post("/sign-out", data={"token": token}).status_code == 303
    assert receiver.requests == []  # nobody waits for the app
    tell(world)
    (request,), (token,) = receiver.requests, receiver.tokens
    assert (request.method, request.headers["host"], request.url.path) == ("POST", "app.example", "/logout")
    keys = KeySet.import_key_set(world.http.get("/oauth/jwks").json())
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    claims, signed = decoded.claims, claims_of(signed_in)[1]
    assert decoded.header["typ"] == "logout+jwt"
    assert (claims["iss"], claims["aud"]) == (ORIGIN, "demo-public")
    assert (claims["sub"], claims["sid"]) == (signed["sub"], signed["sid"])
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims
    assert claims["iat"] == world.clock() // SECOND
    assert claims["exp"] - claims["iat"] == 120
    assert claims["jti"]


def test_logout_token_is_no_id_token_hint(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    tell(world)
    world.tokens()
    page = logout(world, id_token_hint=receiver.tokens[0], post_logout_redirect_uri=BACK)
    assert Page(page.text).action == "/oauth/logout/confirm"
    assert BACK not in page.text


RETRIES = len(back_channel.PAUSES)


@pytest.mark.parametrize(
    ("statuses", "calls"),
    [((200,), 1), ((204,), 1), ((400,), 1), ((0, 503, 200), 3), ((0,) * 9, RETRIES + 1), ((0,) * RETRIES + (200,), RETRIES + 1)],
)
def test_back_channel_2_7_calls_are_repeated_and_then_given_up(world: World, signed_in: str, statuses: tuple[int, ...], calls: int) -> None:
    receiver, recorded = Receiver(world, *statuses), []

    async def record(event: Any, at: int) -> None:
        recorded.append(event)

    object.__setattr__(world.smart, "record_security_event", record)
    logout(world, id_token_hint=signed_in)
    for pause in (*back_channel.PAUSES, DAY):
        tell(world)
        sent = len(receiver.requests)
        world.clock.forward(pause - 1)
        tell(world)
        assert len(receiver.requests) == sent, "not before its time"
        world.clock.forward(1)
    tell(world)
    assert len(receiver.requests) == calls
    assert len({claims_of(token)[1]["jti"] for token in receiver.tokens}) == calls
    is_told = statuses[calls - 1] in (200, 204)
    assert [(event.username, event.client_id, event.done) for event in recorded if event.detail.get("told")] == [
        ("adult", "demo-public", is_told)
    ]
    assert queued(world) == []


def test_only_clients_of_the_session_are_told(world: World, signed_in: str) -> None:
    set_options(world, "demo-confidential", backchannel_logout_uri="https://other.example/logout")
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    tell(world)
    assert receiver.hosts == ["app.example"]


def test_two_clients_of_a_session_are_told_with_their_own_sid(world: World, signed_in: str) -> None:
    set_options(world, "demo-confidential", backchannel_logout_uri="https://other.example/logout")
    page = world.submit(world.follow(world.authorize(client_id="demo-confidential")), patient="adult")
    world.submit(page, decision="allow")
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)
    tell(world)
    assert {claims_of(token)[1]["aud"] for token in receiver.tokens} == {"demo-public", "demo-confidential"}
    assert len({claims_of(token)[1]["sid"] for token in receiver.tokens}) == 2


def test_removed_client_is_not_told(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    set_options(world, post_logout_redirect_uris=(BACK,))
    logout(world, id_token_hint=signed_in)
    tell(world)
    assert (receiver.requests, queued(world)) == ([], [])


@pytest.mark.parametrize(("life", "is_used"), [(SESSION_IDLE, False), (SESSION_LIFE, True)])
def test_session_that_lapses_or_reaches_its_age_is_told_then_and_not_before(world: World, signed_in: str, life: int, is_used: bool) -> None:
    receiver, begun = Receiver(world), world.clock()
    while is_used and world.clock() + SESSION_IDLE < begun + life:
        world.clock.forward(SESSION_IDLE - 1)
        world.follow(world.authorize())
        tell(world)
    world.clock.forward(begun + life - world.clock() - 1)
    tell(world)
    assert receiver.requests == []
    world.clock.forward(1)
    tell(world)
    tell(world)
    assert [claims_of(token)[1]["sid"] for token in receiver.tokens] == [claims_of(signed_in)[1]["sid"]]


def test_session_in_use_is_looked_at_once_in_each_idle_time(world: World, signed_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = [], logout_queue.session_end

    async def counted(*args: Any) -> int:
        looked.append(world.clock())
        return await look(*args)

    monkeypatch.setattr(logout_queue, "session_end", counted)
    for _ in range(60):
        world.clock.forward(MINUTE)
        world.follow(world.authorize())
        tell(world)
    assert 1 <= len(looked) <= HOUR // SESSION_IDLE + 1


def test_client_that_does_not_answer_keeps_no_other_waiting(world: World, signed_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many notices of one client are due before that of another, and do not fit into one look."""
    monkeypatch.setattr(back_channel, "_BATCH", 10)
    set_options(world, "demo-confidential", backchannel_logout_uri="https://other.example/logout")
    receiver = Receiver(world, *[0] * back_channel.PER_CLIENT)

    async def plant() -> None:
        for number in range(30):
            told = logout_queue.SignedIn("demo-confidential", "s", f"sid {number:02}", "adult")
            await logout_queue.add(world.store, f"session {number}", told, world.clock())
            await logout_queue.end(world.store, f"session {number}")

    asyncio.run(plant())
    world.clock.forward(1)
    logout(world, id_token_hint=signed_in)
    for look in range(4):
        tell(world)
        assert receiver.hosts.count("other.example") <= back_channel.PER_CLIENT * (look + 1)
    assert receiver.hosts.count("app.example") == 1
    for _ in range(60):
        world.clock.forward(SECOND)
        tell(world)
    assert len({claims_of(token)[1]["sid"] for token in receiver.tokens}) == 31, "each is told in the end"


def test_notice_that_a_process_left_unsent_is_sent_by_another(world: World, signed_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, post = Receiver(world), back_channel.post_form

    async def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    logout(world, id_token_hint=signed_in)
    monkeypatch.setattr(back_channel, "post_form", killed)
    with pytest.raises(KeyboardInterrupt):
        tell(world)
    monkeypatch.setattr(back_channel, "post_form", post)
    world.clock.forward(back_channel.PAUSES[0])
    tell(world)
    assert receiver.hosts == ["app.example"]


def test_two_processes_that_look_at_once_send_one_notice(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    logout(world, id_token_hint=signed_in)

    async def both() -> None:
        await asyncio.gather(*(back_channel.tell_due(world.smart) for _ in range(4)))

    asyncio.run(both())
    assert receiver.hosts == ["app.example"]


def test_end_that_was_interrupted_is_told_when_the_session_would_have_lapsed(world: World, signed_in: str) -> None:
    receiver = Receiver(world)
    ((key, _),) = asyncio.run(world.store.key_values.list_all("session", world.clock()))
    asyncio.run(world.store.key_values.pop("session", key, world.clock()))  # and the process died before the queue had it
    tell(world)
    assert receiver.requests == []
    world.clock.forward(SESSION_IDLE)
    tell(world)
    assert receiver.hosts == ["app.example"]


def test_running_server_looks_for_what_is_due_until_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a look that failed."""
    looked: list[int] = []

    async def look(smart: object) -> None:
        looked.append(1)
        if len(looked) == 1:
            raise RuntimeError("the store is away")

    monkeypatch.setattr(back_channel, "tell_due", look)
    monkeypatch.setattr(back_channel, "_LOOK_SECONDS", 0)

    async def run() -> None:
        async with running("memory:"):
            await until(lambda: len(looked) > 2, "the server looks for what is due")

    asyncio.run(run())
