"""Activation codes: redeemed once, by one account, with one message for all failures."""

from __future__ import annotations

import asyncio
from copy import copy
from pathlib import Path

import pytest

from fhir_server.clock import MAX_INSTANT
from fhir_server.portal import activation_codes
from fhir_server.portal.activation_codes import CodeRefusedError, Invitation
from fhir_server.smart.accounts import attempts, sessions, users
from fhir_server.smart.core.context import MINUTE, digest
from tests.portal.environment import Form, Visitor, World, code_in

RECORD = "Alex Adult"


def made(world: World) -> str:
    code = code_in(world.signed_in("adult").share())
    assert len(code) == 24
    return code


def typed(visitor: Visitor, code: str) -> tuple[int, str]:
    """Submit a code; return the status and the error message."""
    answer = visitor.send("/accept", "/accept", code=code)
    problem = answer.text.partition('<h2 id="problem-title">There is a problem</h2>')[2].partition("</div>")[0]
    return answer.status_code, problem.strip()


def test_activation_code_guessing_returns_identical_errors(world: World) -> None:
    used, stale = made(world), made(world)
    assert typed(world.signed_in("proxy-standard"), used)[0] == 200
    other = world.signed_in("proxy-full")
    answers = [typed(other, "AAAA-AAAA-AAAA-AAAA-AAAA"), typed(other, used), typed(other, "")]
    world.clock.forward(activation_codes.CODE_LIFE)
    other = world.signed_in("proxy-full")
    answers.append(typed(other, stale))
    answers += [typed(other, "wrong") for _ in range(attempts.PER_ACCOUNT + 1)]
    assert len(set(answers)) == 1 and answers[0][0] == 400 and "is wrong" in answers[0][1]


def test_activation_code_guessing_blocks_valid_codes_temporarily(world: World) -> None:
    code = made(world)
    guesser = world.signed_in("proxy-standard")
    for _ in range(attempts.PER_ACCOUNT):
        typed(guesser, "WRONG")
    assert typed(guesser, code)[0] == 400
    assert typed(world.signed_in("proxy-standard"), code)[0] == 400, "a new session must not give new guesses"
    world.clock.forward(attempts.WINDOW + MINUTE)
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_activation_code_ignores_case_dashes_and_look_alikes(world: World) -> None:
    code = made(world).lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_activation_code_is_valid_until_its_exact_expiry(world: World) -> None:
    first, second = made(world), made(world)
    world.clock.forward(activation_codes.CODE_LIFE - 1)
    assert typed(world.signed_in("proxy-standard"), first)[0] == 200
    world.clock.forward(1)
    assert typed(world.signed_in("proxy-full"), second)[0] == 400


def test_own_activation_code_is_refused_and_stays_valid(world: World) -> None:
    code = made(world)
    status, problem = typed(world.signed_in("adult"), code)
    assert status == 400 and "your own record" in problem
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_activation_code_used_by_staff_is_refused_and_stays_valid(world: World) -> None:
    code = made(world)
    assert typed(world.signed_in("clinician"), code)[0] == 400
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_ending_a_proxy_grant_invalidates_its_activation_code(world: World) -> None:
    code = made(world)
    assert world.signed_in("adult").send("/sharing", "/sharing/end", 1).status_code == 303
    assert typed(world.signed_in("proxy-standard"), code)[0] == 400
    assert world.account("proxy-standard").related_persons == ()


def test_new_activation_code_replaces_the_old_one(world: World) -> None:
    old = made(world)
    new = code_in(world.signed_in("adult").send("/sharing", "/sharing/code"))
    assert new and new != old
    assert typed(world.signed_in("proxy-full"), old)[0] == 400
    assert typed(world.signed_in("proxy-standard"), new)[0] == 200


def test_expired_activation_code_can_be_reissued_but_not_a_used_one(world: World) -> None:
    code = made(world)
    world.clock.forward(activation_codes.CODE_LIFE)
    adult = world.signed_in("adult")
    assert "expired before it was used" in adult.get("/sharing").text
    new = code_in(adult.send("/sharing", "/sharing/code"))
    assert typed(world.signed_in("proxy-standard"), new)[0] == 200
    page = adult.get("/sharing").text
    assert "Make a new code" not in page and "Sam Standard" in page
    token = page.partition('name="token" value="')[2].partition('"')[0]
    consent = next(id for id in world.stored("Consent") if len(id) == 36)
    assert adult.post("/sharing/code", token=token, consent=consent).status_code == 400
    assert code != new


def test_activation_code_use_is_seen_in_all_sessions_of_the_account(world: World) -> None:
    code = made(world)
    here, elsewhere = world.signed_in("proxy-standard"), world.signed_in("proxy-standard")
    assert typed(here, code)[0] == 200
    assert RECORD in here.get("/").text
    assert RECORD in elsewhere.get("/").text


def test_activation_codes_are_not_stored_in_plain_text(world: World) -> None:
    code = made(world)
    kept = [asyncio.run(world.store.key_values.list_all(kind, 0)) for kind in ("activation", "invitation")]
    assert all(kept)
    for text in (code, code.replace("-", "")):
        assert text not in repr(kept)


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_concurrent_activation_code_use_admits_one_account(scheme: str, tmp_path: Path) -> None:
    world = World("memory:" if scheme == "memory" else f"sqlite:///{tmp_path / 'store.sqlite'}")
    names = ["proxy-standard", "proxy-full", "parent-a", "newly-adult"]

    async def race() -> list[object]:
        code = await activation_codes.issue(world.store.key_values, Invitation("adult", "some-consent", "some-person"), world.clock())
        users = [await _found(world, name) for name in names]
        tries = [activation_codes.redeem(world.store, user, code, world.clock()) for user in users * 2]
        return list(await asyncio.gather(*tries, return_exceptions=True))

    outcomes = asyncio.run(race())
    assert [type(one) for one in outcomes if not isinstance(one, tuple)] == [CodeRefusedError] * 7
    linked = [name for name in names if "some-person" in world.account(name).related_persons]
    assert len(linked) == 1


def test_resent_activation_form_shows_the_record_and_links_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code = made(world)
    first = world.signed_in("proxy-standard")
    second = Visitor(copy(first.browser))
    form = Form(first.get("/accept").text, "/accept").forms[0] | {"code": code}
    looked_up = asyncio.run(sessions.current(world.made.smart, first.browser.cookies["session"]))

    async def before_the_first_was_done(*_: object) -> sessions.Session | None:
        return looked_up

    answers = [first.post("/accept", **form)]
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "current", before_the_first_was_done)
        assert second.post("/accept", **form | {"code": "0000"}).status_code == 400  # the control
        answers.append(second.post("/accept", **form))
    for answer in answers:
        assert answer.status_code == 200 and f"<strong>{RECORD}</strong>" in answer.text
    assert RECORD in first.get("/").text and RECORD in second.get("/").text
    assert len(world.account("proxy-standard").related_persons) == 1
    assert typed(world.signed_in("proxy-full"), code)[0] == 400


def test_concurrent_activations_by_one_account_are_all_stored(world: World) -> None:
    async def race() -> list[object]:
        issued = [Invitation("adult", f"consent-{number}", f"person-{number}") for number in range(3)]
        codes = [await activation_codes.issue(world.store.key_values, one, world.clock()) for one in issued]
        user = await _found(world, "proxy-standard")
        tries = [activation_codes.redeem(world.store, user, code, world.clock()) for code in codes]
        return list(await asyncio.gather(*tries, return_exceptions=True))

    outcomes = asyncio.run(race())
    taken = {one[1].related_person for one in outcomes if isinstance(one, tuple)}
    assert len(taken) == 3 and taken == set(world.account("proxy-standard").related_persons)


async def _found(world: World, name: str) -> activation_codes.User:
    user = await activation_codes.users.find(world.store, name)
    assert user is not None
    return user


def test_activation_code_stays_valid_after_a_temporary_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code = made(world)
    with monkeypatch.context() as patch:
        patch.setattr(users, "_LOCK_TIMEOUT", 0.05)
        asyncio.run(world.store.key_values.put_if_absent("changing-account", digest("proxy-standard"), b"", MAX_INSTANT))
        status, problem = typed(world.signed_in("proxy-standard"), code)
    assert status == 400 and "being changed" in problem
    asyncio.run(world.store.key_values.pop("changing-account", digest("proxy-standard"), 0))
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_giver_learns_whose_account_used_the_code_and_when(world: World) -> None:
    """The name is the account's, not the one that the giver typed."""
    code = code_in(world.signed_in("adult").share(name="Bob Brother"))
    world.clock.forward(MINUTE)
    assert typed(world.signed_in("newly-adult"), code)[0] == 200
    giver = world.signed_in("adult")
    page = giver.get("/sharing").text
    entry = page.partition("Bob Brother")[2].partition("</li>")[0]
    assert "Code used by" in entry and "Noor Newly, 21 November 2026, " in entry
    start = giver.get("/").text
    assert "Your code for access to your record was used, by Noor Newly" in start
    assert "was used" not in world.signed_in("newly-adult").get("/").text


def test_code_for_a_user_name_is_useless_to_anybody_else(world: World) -> None:
    """Others get the answer for a wrong code, their attempts count, and the code stays valid."""
    code = code_in(world.signed_in("adult").share(taker=" PROXY-Standard "))
    other = world.signed_in("newly-adult")
    wrong = typed(other, "AAAA-AAAA-AAAA-AAAA-AAAA")
    assert [typed(other, code) for _ in range(attempts.PER_ACCOUNT)] == [wrong] * attempts.PER_ACCOUNT
    assert "You withdrew" not in world.signed_in("adult").get("/sharing").text
    assert "Only the account that you named can use it" in world.signed_in("adult").get("/sharing").text
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_new_code_stays_bound_to_the_user_name(world: World) -> None:
    giver = world.signed_in("adult")
    giver.share(taker="proxy-standard")
    code = code_in(giver.send("/sharing", "/sharing/code"))
    assert typed(world.signed_in("newly-adult"), code)[0] == 400
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200


def test_code_that_nobody_used_can_be_withdrawn(world: World) -> None:
    giver = world.signed_in("adult")
    code = code_in(giver.share())
    assert giver.send("/sharing", "/sharing/withdraw").headers["location"] == "/sharing?withdrawn=yes"
    page = giver.get("/sharing?withdrawn=yes").text
    assert "The code no longer works" in page and "You withdrew the code" in page and "Withdraw the code" not in page
    assert typed(world.signed_in("proxy-standard"), code)[0] == 400
    again = code_in(giver.send("/sharing", "/sharing/code"))
    assert typed(world.signed_in("proxy-standard"), again)[0] == 200


def test_code_that_was_used_cannot_be_withdrawn(world: World) -> None:
    """Also if both happen at the same moment: one of them wins."""
    giver = world.signed_in("adult")
    code = code_in(giver.share())
    form = Form(giver.get("/sharing").text, "/sharing/withdraw").forms[0]
    assert typed(world.signed_in("proxy-standard"), code)[0] == 200
    late = giver.post("/sharing/withdraw", **form)
    assert (late.status_code, "has been used" in late.text, "Code used by" in late.text) == (400, True, True)


def test_withdrawing_and_using_a_code_has_one_winner(world: World) -> None:
    for _ in range(6):
        code = code_in(world.signed_in("adult").share())
        relation = max(world.stored("RelatedPerson").values(), key=lambda person: person["meta"]["lastUpdated"])["id"]
        taker = world.account("proxy-standard")

        async def race(code: str = code, relation: str = relation, taker: users.User = taker) -> tuple[object, object]:
            async def use() -> bool:
                try:
                    await activation_codes.redeem(world.store, taker, code, world.clock())
                except CodeRefusedError:
                    return False
                return True

            return await asyncio.gather(use(), activation_codes.withdraw(world.store.key_values, relation, world.clock()))  # type: ignore[return-value]

        used, withdrawn = asyncio.run(race())
        assert used != withdrawn
        world.clock.forward(MINUTE)
