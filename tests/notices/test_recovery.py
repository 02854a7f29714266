"""A forgotten user name or password: help goes to the verified address of the account, and the page tells nobody whether there is one.

The numbers are those of function F20, *Signing in and getting back*.
"""

from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest

from fhir_server.smart import demo
from fhir_server.smart.accounts import account_events, password_codes, second_factor, sessions, users
from fhir_server.smart.core.context import DAY, HOUR
from fhir_server.smart.notices import contacts
from fhir_server.smart.notices.recovery_pages import PER_ADDRESS, PER_NETWORK
from tests.notices.mailbox import ADDRESS, Mailbox, account, codes_in, deliver, give_address
from tests.smart.environment import Page, World
from tests.smart.test_second_factor import one_time

NEW = "blue kettle four spoons"


def ask(world: World, address: str = ADDRESS) -> httpx.Response:
    return world.submit(world.http.get("/forgot"), address=address)


def mailed_code(world: World, mailbox: Mailbox) -> str:
    ask(world)
    deliver(world.smart)
    return codes_in(mailbox.sent[-1])[0]


def choose(world: World, code: str, **fields: str) -> httpx.Response:
    return world.submit(world.http.get("/recover"), **({"username": "adult", "code": code, "new": NEW, "again": NEW} | fields))


def enters(world: World, password: str) -> bool:
    world.http = world.browser()
    world.sign_in(world.http.get("/sign-in", params={"next": "/signed-out"}), "adult", password)
    return asyncio.run(sessions.current(world.smart, world.http.cookies.get("session") or "")) is not None


def test_f20_a_forgotten_user_name_and_password_are_recovered_by_mail(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    assert 'href="/forgot"' in world.http.get("/sign-in").text
    assert ask(world, f" {ADDRESS.upper()} ").status_code == 200
    assert mailbox.sent == []  # the work is done off the request
    deliver(world.smart)
    message = mailbox.sent[0]
    assert (message.to, "User name: adult" in message.text) == (ADDRESS, True)
    assert "Alex" not in message.text and "Alex" not in message.subject
    assert choose(world, codes_in(message)[0]).status_code == 200
    assert not enters(world, demo.PASSWORD) and enters(world, NEW)


def test_f20_4_known_and_unknown_addresses_get_the_same_page_for_the_same_writes(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)

    def records() -> int:
        kinds = ("notice", "rate-limit", "mailed-password-code")
        return sum(len(asyncio.run(world.store.key_values.list_all(kind, world.clock()))) for kind in kinds)

    answers: list[tuple[int, str | None, str]] = []
    grown: list[int] = []
    for address in (ADDRESS, "nobody@adult.example"):
        before = records()
        answer = ask(world, address)
        grown.append(records() - before - (not answers))  # the first one also begins the count of the network's address
        answers.append((answer.status_code, answer.headers.get("content-length"), answer.text))
    assert answers[0] == answers[1] and answers[0][0] == 200
    assert grown[0] == grown[1] > 0
    deliver(world.smart)
    assert [message.to for message in mailbox.sent] == [ADDRESS]  # the control: one of the two has an account


def test_f20_5_a_mailed_code_is_of_no_use_without_the_second_factor(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    seed = second_factor.new_seed()
    recovery = asyncio.run(second_factor.enroll(world.smart, account(world.store), seed))
    code = mailed_code(world, mailbox)
    for second in ("", "000000"):
        answer = choose(world, code, second=second)
        assert answer.status_code == 400 and "two-step verification" in answer.text
    assert choose(world, "0000-0000-0000-0000-0000", second=recovery[0]).status_code == 400
    assert asyncio.run(second_factor.count_recovery_codes(world.smart, account(world.store))) == len(recovery)
    assert choose(world, code, second=one_time(seed, world.clock())).status_code == 200
    assert choose(world, code, second=recovery[0]).status_code == 400


def test_f20_5_a_recovery_code_stands_for_the_second_factor(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    recovery = asyncio.run(second_factor.enroll(world.smart, account(world.store), second_factor.new_seed()))
    assert choose(world, mailed_code(world, mailbox), second=recovery[0]).status_code == 200


@pytest.mark.parametrize("case", ["used", "late", "replaced", "address removed", "address changed", "wrong account", "another page"])
def test_f20_6_a_mailed_code_works_once_for_a_day_for_its_account(world: World, mailbox: Mailbox, case: str) -> None:
    give_address(world.smart)
    code, user = mailed_code(world, mailbox), account(world.store)
    fields = {"username": "parent-a"} if case == "wrong account" else {}
    if case == "used":
        assert choose(world, code).status_code == 200
    elif case == "late":
        world.clock.forward(DAY)
    elif case == "replaced":
        assert (
            choose(world, mailed_code(world, mailbox), new="short", again="short").status_code == 400
        )  # the control: the new one is right
    elif case == "address removed":
        asyncio.run(contacts.remove(world.store, user, world.clock()))
    elif case == "address changed":
        asyncio.run(contacts.save(world.store, user, "new@adult.example", world.clock()))
    answer = (
        world.submit(world.http.get("/set-password"), username="adult", code=code, new=NEW, again=NEW)
        if case == "another page"
        else choose(world, code, **fields)
    )
    assert answer.status_code == 400 and "wrong" in answer.text


def test_f20_6_a_code_of_the_office_does_not_work_on_the_page_for_mailed_ones(world: World, mailbox: Mailbox) -> None:
    """Otherwise it could be a way around the second factor, or the other way round."""
    code = asyncio.run(password_codes.issue(world.store, account(world.store), world.clock()))
    assert choose(world, code).status_code == 400
    mailed_code_asked_meanwhile = ask(world)
    assert mailed_code_asked_meanwhile.status_code == 200
    assert world.submit(world.http.get("/set-password"), username="adult", code=code, new=NEW, again=NEW).status_code == 200


def test_f20_7_a_new_password_ends_sessions_and_the_address_is_told(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    assert enters(world, demo.PASSWORD)
    session = world.http.cookies["session"]
    code = mailed_code(world, mailbox)
    page = choose(world, code)
    assert 'href="/apps"' in page.text  # apps keep access, and the page says where it ends
    assert asyncio.run(sessions.current(world.smart, session)) is None
    deliver(world.smart)
    assert mailbox.sent[-1].subject == "A change of your account" and codes_in(mailbox.sent[-1]) == []
    events = asyncio.run(account_events.list_events(world.store, account(world.store), world.clock()))
    assert events[0].kind == "password-mail"


def test_accounts_that_share_an_address_each_get_a_code(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    give_address(world.smart, "newly-adult", ADDRESS.title())
    ask(world)
    deliver(world.smart)
    assert len(mailbox.sent) == 1 and len(codes_in(mailbox.sent[0])) == 2
    assert "User name: adult" in mailbox.sent[0].text and "User name: newly-adult" in mailbox.sent[0].text


def test_a_locked_account_gets_no_help(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    asyncio.run(users.save(world.store, msgspec.structs.replace(account(world.store), disabled=True)))
    ask(world)
    deliver(world.smart)
    assert mailbox.sent == []


def test_messages_to_an_address_are_limited_in_silence(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    pages = {Page(ask(world).text).text for _ in range(PER_ADDRESS + 2)}
    deliver(world.smart)
    assert len(pages) == 1 and len(mailbox.sent) == PER_ADDRESS
    world.clock.forward(DAY + HOUR)
    ask(world)
    deliver(world.smart)
    assert len(mailbox.sent) == PER_ADDRESS + 1


def test_requests_of_a_network_are_limited(world: World, mailbox: Mailbox) -> None:
    statuses = [ask(world, f"someone-{number}@adult.example").status_code for number in range(PER_NETWORK + 1)]
    assert statuses == [200] * PER_NETWORK + [429]


@pytest.mark.parametrize(
    "typed", ["", "alex", "a@b", "a b@c.example", "a@c.example\r\nBcc: x@y.example", "@c.example", "x" * 300 + "@c.example"]
)
def test_what_is_no_address_is_refused_with_a_reason(world: World, mailbox: Mailbox, typed: str) -> None:
    answer = ask(world, typed)
    assert answer.status_code == 400 and "Enter an e-mail address" in answer.text
    deliver(world.smart)
    assert mailbox.tried == []


def test_csrf_recovery_forms_of_another_browser_are_refused(world: World, mailbox: Mailbox) -> None:
    for path in ("/forgot", "/recover"):
        fields = dict(Page(world.http.get(path).text).sent) | {"address": ADDRESS}
        assert world.browser().post(path, data=fields).status_code == 403
        assert world.http.post(path, data=fields).status_code in (200, 400)  # the control


def test_a_server_without_mail_offers_no_recovery_by_mail(world: World) -> None:
    assert world.http.get("/forgot").status_code == 404 and world.http.get("/recover").status_code == 404
    assert "/forgot" not in world.http.get("/sign-in").text


def test_nothing_of_an_address_stays_when_the_account_is_removed(world: World, mailbox: Mailbox) -> None:
    give_address(world.smart)
    asyncio.run(users.remove(world.store, "adult", world.clock()))
    for kind in ("contact", "contact-address", "pending-contact"):
        assert asyncio.run(world.store.key_values.list_all(kind, 0)) == (), kind
    ask(world)
    deliver(world.smart)
    assert mailbox.sent == []
