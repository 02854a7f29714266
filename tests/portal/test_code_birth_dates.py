"""An activation code for a person with one birth date: useless without it, and guessed by nobody."""

from __future__ import annotations

import asyncio
import re
from datetime import date

import msgspec
import pytest

from fhir_server.portal import activation_codes
from fhir_server.smart.accounts import attempts
from fhir_server.smart.core.context import MINUTE, SECOND
from tests.portal.environment import Visitor, World, code_in
from tests.portal.test_activation_codes import typed

BORN, OTHER = "1990-05-17", "1990-05-18"


def typed_with(taker: Visitor, code: str, born: str) -> tuple[int, str]:
    answer = taker.send("/accept", "/accept", code=code, born=born)
    problem = answer.text.partition('<h2 id="problem-title">There is a problem</h2>')[2].partition("</div>")[0]
    return answer.status_code, problem.strip()


def test_code_for_a_birth_date_is_useless_without_it(world: World) -> None:
    """A wrong date, and none, get the answer for a wrong code, and the code stays valid, also one that is made anew."""
    giver = world.signed_in("adult")
    giver.share(born=BORN, taker="proxy-standard")
    assert "The birth date that you entered must be given with it" in giver.get("/sharing").text
    assert BORN not in giver.get("/sharing").text
    code = code_in(giver.send("/sharing", "/sharing/code"))
    taker = world.signed_in("proxy-standard")
    wrong = typed(taker, "AAAA-AAAA-AAAA-AAAA-AAAA")
    assert [typed(taker, code), typed_with(taker, code, OTHER)] == [wrong, wrong]
    assert typed_with(world.signed_in("newly-adult"), code, BORN)[0] == 400  # it is for a user name, too
    assert typed_with(taker, code, BORN)[0] == 200


@pytest.mark.parametrize("born", ["1990-13-01", "17.5.1990", "2999-01-01", "0001-01-01", "x"])
def test_impossible_birth_date_is_refused_on_both_pages_and_counts_for_nothing(world: World, born: str) -> None:
    giver, taker = world.signed_in("adult"), world.signed_in("proxy-standard")
    refused = giver.share(born=born)
    assert (refused.status_code, "Enter the birth date as year, month and day" in refused.text) == (400, True)
    code = code_in(giver.share(born=BORN))
    for _ in range(attempts.PER_ACCOUNT + 1):
        status, text = typed_with(taker, code, born)
        assert (status, "Enter the birth date as year, month and day" in text) == (400, True)
    assert typed_with(taker, code, BORN)[0] == 200


def test_birth_date_that_was_not_asked_for_does_no_harm(world: World) -> None:
    code = code_in(world.signed_in("adult").share())
    assert typed_with(world.signed_in("proxy-standard"), code, BORN)[0] == 200


def test_who_guesses_birth_dates_locks_nobody_out(world: World) -> None:
    """Of all accounts together, few wrong dates are free.  After them the right one passes in its turn, and a guess has to wait, too."""
    code = code_in(world.signed_in("adult").share(born=BORN))
    guessers = [world.signed_in(name) for name in ("newly-adult", "parent-a", "proxy-full")]
    for guesser in guessers:
        for _ in range(attempts.PER_ACCOUNT):
            typed_with(guesser, code, OTHER)
    taker = world.signed_in("proxy-standard")
    status, text = typed_with(taker, code, BORN)
    if status == 400:
        assert "There were many wrong attempts with this code" in text
        wait = re.search(r"in (\d+) (second|minute)", text)
        assert wait is not None
        world.clock.forward(int(wait[1]) * (SECOND if wait[2] == "second" else MINUTE))
        status, _ = typed_with(taker, code, BORN)
    assert status == 200


def test_guesses_of_a_birth_date_are_few_in_a_day(world: World) -> None:
    """A planted guesser with as many accounts as it takes has ten free guesses, and one in three minutes after them."""
    code, compared = code_in(world.signed_in("adult").share(born=BORN)), 0
    guesser = world.account("newly-adult")
    for number in range(60):
        user = msgspec.structs.replace(guesser, username=f"guesser-{number}", subject=f"guesser {number}")
        try:
            asyncio.run(activation_codes.redeem(world.store, user, code, world.clock(), date(1990, 1, 1)))
        except activation_codes.CodeRefusedError as refused:
            compared += str(refused) == activation_codes.WRONG
    assert compared == 11  # the ten, and the first turn
