"""A patient opens an account with a code: once, with the birth date, from the office or by mail.  Numbers are those of function F19."""

from __future__ import annotations

import asyncio
from datetime import date

import httpx
import pytest

from fhir_server.portal.join import PER_NETWORK
from fhir_server.smart.accounts import account_codes, users
from fhir_server.smart.accounts.account_codes import DATES, LIFE, MAILED_LIFE, Opening
from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import notice_queue
from fhir_server.smart.core.context import DAY
from fhir_server.smart.notices import contacts
from tests.notices.mailbox import Mailbox, codes_in, deliver
from tests.portal.environment import Visitor, World

BORN, PASSWORD = date(1980, 2, 29), "blue kettle four spoons"
OPENING = Opening("new-patient", "Nora New", account_codes.born_of("new-patient", BORN))


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def world(mailbox: Mailbox) -> World:
    return World(mail=mailbox)


def issued(world: World, opening: Opening = OPENING) -> str:
    return asyncio.run(account_codes.issue(world.store, opening, world.clock()))


def join(visitor: Visitor, code: str, **fields: str) -> httpx.Response:
    given = {"code": code, "born": BORN.isoformat(), "username": "nora", "new": PASSWORD, "again": PASSWORD} | fields
    return visitor.send("/join", "/join", **given)


def account(world: World, username: str = "nora") -> User | None:
    return asyncio.run(users.find(world.store, username))


def enters(world: World, username: str) -> bool:
    return world.visitor().send("/sign-in", "/sign-in", username=username, password=PASSWORD).status_code == 303


def test_f19_1_a_code_and_the_birth_date_open_an_account_with_an_own_user_name(world: World) -> None:
    visitor = world.visitor()
    assert 'href="/join"' in visitor.get("/").text and 'href="/join"' in visitor.get("/sign-in").text
    page = join(visitor, issued(world).lower().replace("-", " "))
    assert page.status_code == 200 and "<strong>nora</strong>" in page.text
    made = account(world)
    assert made is not None and (made.patient, made.name, made.role) == ("new-patient", "Nora New", "patient")
    assert enters(world, "nora")


def test_f19_3_a_code_lives_90_days_and_works_once(world: World) -> None:
    code = issued(world)
    world.clock.forward(LIFE - DAY)
    assert join(world.visitor(), code).status_code == 200
    assert join(world.visitor(), code, username="again").status_code == 400
    late = issued(world, Opening("other", "Otto", account_codes.born_of("other", BORN)))
    world.clock.forward(LIFE + DAY)
    assert join(world.visitor(), late, username="otto").status_code == 400


def test_f19_3_of_64_at_once_one_opens_the_account(world: World) -> None:
    code = issued(world)

    async def race() -> list[object]:
        smart = world.made.smart
        tries = (account_codes.redeem(smart, code, BORN, f"nora-{number}", PASSWORD) for number in range(64))
        return [one for one in await asyncio.gather(*tries, return_exceptions=True) if not isinstance(one, Exception)]

    assert len(asyncio.run(race())) == 1
    made = [user for user in asyncio.run(users.list_all(world.store)) if user.patient == "new-patient"]
    assert len(made) == 1


def test_f19_4_another_code_replaces_an_earlier_one(world: World) -> None:
    first, second = issued(world), issued(world)
    assert join(world.visitor(), first).status_code == 400
    assert join(world.visitor(), second).status_code == 200


def test_f19_5_five_wrong_birth_dates_end_a_code(world: World) -> None:
    code, visitor = issued(world), world.visitor()
    for number in range(DATES):
        assert join(visitor, code, born=f"1980-03-0{number + 1}").status_code == 400
    world.clock.forward(30 * DAY)
    assert join(visitor, code).status_code == 400 and account(world) is None
    assert join(visitor, issued(world)).status_code == 200  # the control: the office gives another one


def test_f19_6_a_patient_gets_no_second_account(world: World) -> None:
    adult = Opening("adult", "Alex Adult", account_codes.born_of("adult", BORN))
    page = join(world.visitor(), issued(world, adult))
    assert page.status_code == 400 and "have an account already" in page.text and account(world) is None


def test_wrong_codes_and_dates_get_one_answer(world: World) -> None:
    code = issued(world)
    pages = [join(world.visitor(), *case) for case in (("AAAA-AAAA-AAAA-AAAA-AAAA",), ("",))]
    pages += [join(world.visitor(), code, born=born) for born in ("1980-02-28", "", "yesterday")]
    told = {page.text.partition('role="alert"')[2].partition("</div>")[0] for page in pages}
    assert len(told) == 1 and {page.status_code for page in pages} == {400}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"username": "adult"}, "already a user"),
        ({"username": " "}, "user name must have"),
        ({"new": "short", "again": "short"}, "10 characters"),
        ({"again": "another phrase of words"}, "do not match"),
    ],
)
def test_what_cannot_be_taken_is_named_and_the_code_stays_valid(world: World, fields: dict[str, str], words: str) -> None:
    code = issued(world)
    page = join(world.visitor(), code, **fields)
    assert page.status_code == 400 and words in page.text and PASSWORD not in page.text
    assert join(world.visitor(), code).status_code == 200


def test_an_account_with_a_mailed_code_has_that_address(world: World, mailbox: Mailbox) -> None:
    detail = {"patient": OPENING.patient, "name": OPENING.name, "born": OPENING.born}
    asyncio.run(notice_queue.add(world.store, "invitation", address="nora@new.example", detail=detail))
    deliver(world.made.smart)
    (message,) = mailbox.sent
    assert "Nora" not in message.text and "/join" in message.text
    assert join(world.visitor(), codes_in(message)[0]).status_code == 200
    made = account(world)
    assert made is not None
    contact = asyncio.run(contacts.find(world.store, made))
    assert contact is not None and contact.address == "nora@new.example"
    deliver(world.made.smart)
    assert mailbox.sent[-1].to == "nora@new.example" and mailbox.sent[-1].subject == "A change of your account"


def test_a_mailed_code_lives_30_days(world: World, mailbox: Mailbox) -> None:
    code = issued(world, Opening("new-patient", "Nora", OPENING.born, address="nora@new.example"))
    world.clock.forward(MAILED_LIFE + DAY)
    assert join(world.visitor(), code).status_code == 400


def test_codes_are_not_stored_in_plain_text(world: World) -> None:
    code = issued(world)
    stored = repr(asyncio.run(world.store.key_values.list_all("account-code", 0)))
    assert "new-patient" in stored and code not in stored and code.replace("-", "") not in stored and "1980" not in stored


def test_attempts_of_a_network_are_limited(world: World) -> None:
    visitor = world.visitor()
    statuses = [join(visitor, "AAAA", again="differs").status_code for _ in range(PER_NETWORK + 1)]
    assert statuses == [400] * PER_NETWORK + [429]


def test_csrf_form_of_another_browser_is_refused(world: World) -> None:
    visitor = world.visitor()
    visitor.get("/join")
    fields = {"code": issued(world), "born": BORN.isoformat(), "username": "nora", "new": PASSWORD, "again": PASSWORD}
    assert visitor.post("/join", token="x", **fields).status_code == 403 and account(world) is None
