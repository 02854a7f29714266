"""What is slow is said to be slow, and does not hold up what is not. The tests move the clock of the event loop; none waits."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import msgspec

from fhir_server.linking import organizations
from fhir_server.linking.organizations import Organization
from tests.linking.odd_partners import HONEST, ODD, ODD_BASE, OddWorld, bundle, laboratory
from tests.linking.odd_table import PEANUT, POTASSIUM, UNKNOWN
from tests.waiting import HANG, let_others_run, until

NOT_YET = "The other health system has not answered our question about {} yet. " + UNKNOWN
EVERYTHING = "The other health system has not answered our question about the information in this record yet."
SLOW = "Odd Health is slow and has not sent everything yet."
IN_TIME = "The other health system did not answer our question about {} in time. Try again later. " + UNKNOWN


async def time_is_over() -> None:
    """When all others have answered, let the time of the page be over."""
    await let_others_run()
    loop = asyncio.get_running_loop()
    begun = loop.time
    loop.time = lambda: begun() + 2 * HANG  # type: ignore[method-assign]


async def hang(request: httpx.Request) -> Any:
    """Answer never."""
    await time_is_over()
    await asyncio.Event().wait()


def slow_at(*paths: str) -> tuple[OddWorld, str]:
    """A world and its page; the partner never answers at these paths, and the page's time is over when it has answered all others."""
    world = OddWorld({})
    page = world.linked()
    world.read(page)
    asked = [request.url.path for request in world.partner.calls]
    others = [path for path in asked[asked.index("/fhir/Patient/p1") :] if path not in paths]
    answered = len(world.partner.answered)

    async def hang_after_the_others(request: httpx.Request) -> Any:
        await until(lambda: len(world.partner.answered) >= answered + len(others), "all others are answered")
        await hang(request)

    world.partner.instead |= dict.fromkeys(paths, hang_after_the_others)
    return world, page


def _wait_link(world: OddWorld, page: str) -> str:
    found = re.search(r'<a href="([^"]+)">Wait for the rest</a>', world.ours.http.get(page).text)
    assert found
    return found[1].replace("&amp;", "&")


def test_slow_list_does_not_hold_up_the_others() -> None:
    world, page = slow_at("/fhir/AllergyIntolerance", "/fhir/Encounter")
    outline = world.read(page)
    assert f"{SLOW} Still to come: Allergies, Visits." in outline.above
    assert outline.section("Allergies") == [NOT_YET.format("allergies")]
    assert outline.section("Test results") == POTASSIUM
    assert NOT_YET.format("visits") in outline.section("Visits")


def test_person_can_wait_for_the_rest_alone() -> None:
    world, page = slow_at("/fhir/AllergyIntolerance")
    rest = _wait_link(world, page)
    assert rest == f"{page}?wait=allergies"
    del world.partner.instead["/fhir/AllergyIntolerance"]
    before = len(world.partner.calls)
    outline = world.read(rest)
    assert outline.section("Allergies") == PEANUT
    assert not [line for line in outline.lines if line in ("Test results", SLOW)]
    assert "Show everything from Odd Health" in outline.lines
    assert "Alex Adult, born 3 February 1980" in outline.lines
    assert [request.url.path for request in world.partner.calls[before:]] == ["/fhir/Patient/p1", "/fhir/AllergyIntolerance"]


def test_waiting_ends_and_says_so() -> None:
    world = OddWorld({"/fhir/AllergyIntolerance": hang})
    outline = world.read(f"{world.linked()}?wait=allergies")
    assert outline.section("Allergies") == [IN_TIME.format("allergies")]
    assert "Wait for the rest" not in outline.lines


def test_slow_for_everything_is_said_once() -> None:
    world = OddWorld({"/fhir/*": hang})
    page = world.linked()
    lines = world.read(page).lines
    assert [line for line in lines if "yet" in line] == [EVERYTHING, SLOW]
    assert _wait_link(world, page).count("wait=") == len({*_wait_link(world, page).split("&")}) > 7


def test_slow_about_whose_record_it_is_shows_nothing_of_it() -> None:
    world = OddWorld({"/fhir/Patient/p1": hang})
    page = world.linked()
    lines = world.read(page).lines
    assert "The other health system has not answered yet." in lines
    assert not {"Potassium", "Check whose record this is"} & {*lines}
    rest = _wait_link(world, page)
    assert "The other health system did not answer in time. Try again later." in world.read(rest).lines
    del world.partner.instead["/fhir/Patient/p1"]
    assert world.read(rest).section("Test results") == POTASSIUM


def test_list_whose_next_page_is_slow_shows_the_first_and_can_be_waited_for() -> None:
    async def paged(request: httpx.Request) -> Any:
        if "page" in request.url.params:
            return await hang(request)
        return bundle(laboratory("Potassium", "2026-01-02"), link=[{"relation": "next", "url": f"{ODD_BASE}/Observation?page=2"}])

    world = OddWorld({"/fhir/Observation": paged})
    page = world.linked()
    assert world.read(page).section("Test results") == [
        "This list of test results is incomplete, and newer ones may be missing: the other health system has not sent the rest yet.",
        *POTASSIUM,
    ]
    assert "wait=test-results" in _wait_link(world, page)


def test_unknown_section_to_wait_for_is_the_whole_page() -> None:
    world = OddWorld({})
    assert world.read(f"{world.linked()}?wait=nothing&wait=").section("Test results") == POTASSIUM


def test_slow_partner_does_not_hold_up_the_page_of_another() -> None:
    """Control: the slow one has all its places taken and answers nobody."""
    world = OddWorld({})
    page = world.linked()
    slow = msgspec.structs.replace(ODD, id="slow", name="Slow Health", base="http://127.0.0.1:7001/fhir")
    asyncio.run(_register_and_fill(world, slow))
    assert world.read(page).section("Test results") == POTASSIUM
    assert "Slow Health" in world.ours.http.get("/links").text


async def _register_and_fill(world: OddWorld, organization: Organization) -> None:
    await organizations.add(world.ours.smart, organization)
    values, now = world.ours.store.key_values, world.clock()
    for number in range(organization.at_once):
        assert await values.put_if_absent("link-place", f"{organization.id} {number}", b"held", now + 60_000_000)


def test_refresh_of_tokens_is_never_cut_short() -> None:
    """A refresh token that was sent and whose answer is thrown away would end the link."""
    world = OddWorld({}, deadline=5 * HANG)
    page = world.linked()

    async def refresh(request: httpx.Request) -> Any:
        await time_is_over()
        await let_others_run()
        return HONEST["/token"] | {"access_token": "a2", "refresh_token": "r2"}

    refused: list[str] = []

    def patient(request: httpx.Request) -> Any:
        if request.headers["authorization"] == "Bearer a1":
            refused.append("a1")
            return httpx.Response(401, content=b"{}")
        return HONEST["/fhir/Patient/p1"]

    world.partner.instead |= {"/token": refresh, "/fhir/Patient/p1": patient}
    world.read(page)
    assert refused == ["a1"]
    assert world.read(page).section("Test results") == POTASSIUM
    assert [form.get("refresh_token") for form in world.partner.forms("/token")] == [None, "r1"]
