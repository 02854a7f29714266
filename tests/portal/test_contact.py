"""The e-mail address of an account: verified by a code, changed only with the password, and both addresses are told."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhir_server.portal.contact import CODES_AN_HOUR
from fhir_server.smart import demo
from fhir_server.smart.accounts import second_factor
from fhir_server.smart.accounts.attempts import PER_ACCOUNT, WINDOW
from fhir_server.smart.notices import contacts
from tests.notices.mailbox import Mailbox, codes_in, deliver
from tests.portal.environment import Visitor, World
from tests.smart.test_second_factor import one_time

PATH = "/account/contact"
FIRST, OTHER = "alex@adult.example", "alex@other.example"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def world(mailbox: Mailbox) -> World:
    return World(mail=mailbox)


def propose(visitor: Visitor, address: str = FIRST, **fields: str) -> httpx.Response:
    return visitor.send(PATH, PATH, **({"address": address, "password": demo.PASSWORD} | fields))


def confirm(visitor: Visitor, code: str) -> httpx.Response:
    return visitor.send(PATH, f"{PATH}/confirm", code=code)


def sent_code(world: World, mailbox: Mailbox) -> str:
    deliver(world.made.smart)
    return codes_in(mailbox.sent[-1])[0]


def verified(world: World, username: str = "adult") -> str:
    contact = asyncio.run(contacts.find(world.store, world.account(username)))
    return contact.address if contact else ""


def add(world: World, mailbox: Mailbox, visitor: Visitor, address: str = FIRST) -> None:
    assert propose(visitor, address).status_code == 303
    assert confirm(visitor, sent_code(world, mailbox)).status_code == 303
    deliver(world.made.smart)


def test_an_address_is_verified_by_the_code_that_was_sent_to_it(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    assert f'href="{PATH}"' in adult.get("/account").text
    assert propose(adult).headers["location"] == f"{PATH}?done=sent"
    assert verified(world) == ""
    code = sent_code(world, mailbox)
    assert mailbox.sent[-1].to == FIRST
    assert confirm(adult, code.lower().replace("-", " ")).headers["location"] == f"{PATH}?done=verified"
    assert verified(world) == FIRST


def test_f20_8_pages_show_addresses_masked(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    add(world, mailbox, adult)
    propose(adult, OTHER)
    for path in ("/account", PATH):
        text = adult.get(path).text
        assert "a***@adult.example" in text and FIRST not in text and OTHER not in text
    assert "a***@other.example" in adult.get(PATH).text


def test_both_addresses_are_told_of_a_change(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    add(world, mailbox, adult)
    mailbox.sent.clear()
    add(world, mailbox, adult, OTHER)
    told = [message.to for message in mailbox.sent if message.subject == "A change of your account"]
    assert sorted(told) == [FIRST, OTHER] and verified(world) == OTHER


def test_a_removed_address_is_told_and_gets_nothing_more(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    add(world, mailbox, adult)
    mailbox.sent.clear()
    assert adult.send(PATH, f"{PATH}/end", password=demo.PASSWORD).headers["location"] == f"{PATH}?done=removed"
    deliver(world.made.smart)
    assert [message.to for message in mailbox.sent] == [FIRST] and verified(world) == ""
    assert asyncio.run(contacts.accounts_of(world.store, FIRST)) == []


@pytest.mark.parametrize("action", [PATH, f"{PATH}/end"])
def test_a_change_needs_the_password(world: World, mailbox: Mailbox, action: str) -> None:
    adult = world.signed_in("adult")
    add(world, mailbox, adult)
    fields = {"address": OTHER} if action == PATH else {}
    assert adult.send(PATH, action, password="wrong", **fields).status_code == 400
    deliver(world.made.smart)
    assert verified(world) == FIRST and OTHER not in {message.to for message in mailbox.sent}
    assert adult.send(PATH, action, password=demo.PASSWORD, **fields).status_code == 303  # the control


def test_a_change_needs_the_second_factor_where_there_is_one(world: World, mailbox: Mailbox) -> None:
    adult, seed = world.signed_in("adult"), second_factor.new_seed()
    asyncio.run(second_factor.enroll(world.made.smart, world.account("adult"), seed))
    assert propose(adult, code="000000").status_code == 400
    assert propose(adult, code=one_time(seed, world.clock())).status_code == 303


def test_f13_5_wrong_codes_are_limited_and_a_code_works_once(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    propose(adult)
    code = sent_code(world, mailbox)
    for _ in range(PER_ACCOUNT):
        assert confirm(adult, "0000-0000").status_code == 400
    assert confirm(adult, code).status_code == 400  # even the right one
    world.clock.forward(WINDOW)
    adult = world.signed_in("adult")
    assert confirm(adult, code).status_code == 303
    propose(adult, OTHER)
    assert confirm(adult, code).status_code == 400


def test_a_code_is_only_of_the_address_it_was_sent_to(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    propose(adult)
    code = sent_code(world, mailbox)
    propose(adult, OTHER)
    deliver(world.made.smart)
    assert confirm(adult, code).status_code == 400 and verified(world) == ""


def test_a_code_of_another_account_is_refused(world: World, mailbox: Mailbox) -> None:
    adult, other = world.signed_in("adult"), world.signed_in("newly-adult")
    propose(adult)
    code = sent_code(world, mailbox)
    propose(other)
    assert confirm(other, code).status_code == 400
    assert confirm(adult, code).status_code == 303  # the control


def test_codes_are_not_stored_in_plain_text(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    propose(adult)
    code = sent_code(world, mailbox)
    stored = repr([asyncio.run(world.store.key_values.list_all(kind, 0)) for kind in ("notice", "pending-contact")])
    assert FIRST in stored and code not in stored and code.replace("-", "") not in stored


def test_the_number_of_codes_an_hour_is_limited(world: World, mailbox: Mailbox) -> None:
    adult = world.signed_in("adult")
    answers = [propose(adult, f"a{number}@adult.example") for number in range(CODES_AN_HOUR + 1)]
    assert [answer.status_code for answer in answers] == [303] * CODES_AN_HOUR + [429]


def test_csrf_contact_forms_of_another_browser_are_refused(world: World) -> None:
    adult, other = world.signed_in("adult"), world.signed_in("newly-adult")
    token = other.get(PATH).text.partition('name="token" value="')[2].partition('"')[0]
    for path in (PATH, f"{PATH}/confirm", f"{PATH}/end"):
        assert adult.post(path, token=token, address=OTHER, password=demo.PASSWORD, code="x").status_code == 403


def test_a_server_without_mail_has_no_such_page() -> None:
    adult = World().signed_in("adult")
    assert adult.get(PATH).status_code == 404 and PATH not in adult.get("/account").text
