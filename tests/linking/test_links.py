from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest

from fhir_server.linking import links, organizations
from fhir_server.linking.context import LinkEndedError
from fhir_server.linking.display import LinkedRecord, load_record
from fhir_server.linking.links import Link
from fhir_server.smart.accounts import users
from fhir_server.smart.core.context import DAY, HOUR, new_secret
from fhir_server.web import dates
from tests.linking.environment import CALLBACK, NEIGHBOUR, Worlds
from tests.smart.environment import BASE, query


def _only(worlds: Worlds) -> Link:
    (link,) = asyncio.run(links.list_all(worlds.context, worlds.user()))
    return link


def test_link_request_is_a_standalone_smart_launch_with_pkce(worlds: Worlds) -> None:
    first, second = query(worlds.started()), query(worlds.started())
    assert first["aud"] == BASE
    assert first["redirect_uri"] == CALLBACK
    assert first["code_challenge_method"] == "S256"
    assert set(first["scope"].split()) == {"launch/patient", "openid", "fhirUser", "offline_access", "patient/*.rs"}
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("organization", ["neighbour", "signed"])
def test_linked_record_is_displayed_until_it_is_unlinked(worlds: Worlds, organization: str) -> None:
    page = worlds.linked(organization)
    text = worlds.ours.http.get(page).text
    for shown in ("Hives", "3 February 2020", "Metformin 500 mg", "Potassium", "4.1 mmol/L", "2 January 2026", "Office visit", "May 2025"):
        assert shown in text
    assert "Never was" not in text  # entered in error
    assert worlds.their_tokens() == 1
    gone = worlds.ours.http.post(f"{page}/unlink", data={"token": worlds.token()})
    assert gone.headers["location"] == "/links?unlinked=yes"
    assert worlds.their_tokens() == 0
    assert worlds.kept() == {"links": 0, "tokens": 0}
    assert worlds.ours.http.get(page).status_code == 404


def test_remote_text_is_html_escaped(worlds: Worlds) -> None:
    text = worlds.ours.http.get(worlds.linked()).text
    assert "Peanut &lt;b&gt;" in text
    assert "<b>" not in text
    assert "Neighbour &lt;Health&gt;" in text


def test_remote_searches_name_only_the_linked_patient(worlds: Worlds) -> None:
    worlds.ours.http.get(worlds.linked())
    reads = [url for _, url, _ in worlds.wire.calls if url.startswith(f"{BASE}/Patient")]
    searches = [params for _, url, params in worlds.wire.calls if url.startswith(f"{BASE}/") and "patient=" in url]
    assert reads == [f"{BASE}/Patient/adult"]
    assert len(searches) >= 7
    assert {params["patient"] for params in searches} == {"adult"}


def test_remote_data_is_not_stored(worlds: Worlds) -> None:
    page = worlds.linked()
    assert "Hives" in worlds.ours.http.get(page).text
    whole = repr(vars(worlds.ours.store)) + repr(vars(worlds.ours.store.key_values))
    assert "our-portal" in whole  # the control: this does show what is kept
    assert "Hives" not in whole


def test_expired_link_tokens_are_refreshed_and_stored(worlds: Worlds) -> None:
    page = worlds.linked()
    for _ in range(3):
        worlds.clock.forward(2 * HOUR)
        worlds.sign_in()
        assert "Hives" in worlds.ours.http.get(page).text
    assert worlds.wire.paths().count("/oauth/token") == 4


def test_concurrent_reads_refresh_link_tokens_once(worlds: Worlds) -> None:
    worlds.linked()
    worlds.clock.forward(2 * HOUR)
    user, link = worlds.user(), _only(worlds)

    async def together() -> list[LinkedRecord]:
        return await asyncio.gather(*(load_record(worlds.context, user, link, NEIGHBOUR) for _ in range(8)))

    assert all([row.what for row in record.sections[0].rows] == ["Peanut <b>"] for record in asyncio.run(together()))
    assert worlds.wire.paths().count("/oauth/token") == 2  # the exchange and one renewal
    assert worlds.their_tokens() == 1


def test_rejected_link_token_is_refreshed_once(worlds: Worlds) -> None:
    page = worlds.linked()
    refused: list[str] = []

    async def read(request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"]
        if not refused or token in refused:
            refused.append(token)
            return httpx.Response(401, json={})
        return await worlds.wire.app.handle_async_request(request)

    worlds.wire.instead["/Patient/adult"] = read
    before = worlds.wire.paths().count("/oauth/token")
    assert "Hives" in worlds.ours.http.get(page).text
    assert len(refused) == 1
    assert worlds.wire.paths().count("/oauth/token") == before + 1


def test_link_ended_remotely_shows_a_notice_and_can_be_unlinked(worlds: Worlds) -> None:
    page = worlds.linked()
    asyncio.run(users.remove(worlds.theirs.store, "adult", worlds.clock()))
    worlds.clock.forward(2 * HOUR)
    worlds.sign_in()
    answer = worlds.ours.http.get(page)
    assert "Link the account again" in answer.text
    assert "Hives" not in answer.text
    worlds.ours.http.post(f"{page}/unlink", data={"token": worlds.token()})
    assert worlds.kept() == {"links": 0, "tokens": 0}


def test_relinking_the_same_record_replaces_the_first_link(worlds: Worlds) -> None:
    first = worlds.linked()
    second = worlds.linked()
    assert first != second
    assert worlds.kept() == {"links": 1, "tokens": 1}
    assert worlds.their_tokens() == 1
    assert "Hives" in worlds.ours.http.get(second).text


def test_unlinking_deletes_tokens_even_if_revocation_fails(worlds: Worlds) -> None:
    page = worlds.linked()

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down")

    worlds.wire.instead["/oauth/revoke"] = fail
    assert worlds.ours.http.post(f"{page}/unlink", data={"token": worlds.token()}).status_code == 303
    assert worlds.kept() == {"links": 0, "tokens": 0}
    assert "/oauth/revoke" in worlds.wire.paths()


def test_unlinking_during_a_token_refresh_leaves_no_tokens(worlds: Worlds) -> None:
    worlds.linked()
    worlds.clock.forward(2 * HOUR)
    user, link = worlds.user(), _only(worlds)
    arrived, cut = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        answer = await worlds.wire.app.handle_async_request(request)
        arrived.set()
        await cut.wait()
        return answer

    worlds.wire.instead["/oauth/token"] = slow

    async def race() -> None:
        reading = asyncio.create_task(load_record(worlds.context, user, link, NEIGHBOUR))
        await arrived.wait()
        assert await links.unlink(worlds.context, user, link)
        cut.set()
        with pytest.raises(LinkEndedError):
            await reading

    asyncio.run(race())
    assert worlds.kept() == {"links": 0, "tokens": 0}
    assert worlds.their_tokens() == 0


def test_links_are_visible_only_to_their_account(worlds: Worlds) -> None:
    page = worlds.linked()
    assert "Hives" in worlds.ours.http.get(page).text
    for other in ("proxy-full", "proxy-standard", "parent-a"):
        worlds.sign_in(other)
        assert page not in worlds.ours.http.get("/links").text
        theirs, none = worlds.ours.http.get(page), worlds.ours.http.get("/links/never-was")
        assert (theirs.status_code, theirs.text) == (404, none.text)
        assert worlds.ours.http.post(f"{page}/unlink", data={"token": worlds.token()}).status_code == 404
    worlds.sign_in()
    assert "Hives" in worlds.ours.http.get(page).text


def test_recreated_account_does_not_inherit_links(worlds: Worlds) -> None:
    worlds.linked()
    old = worlds.user()

    async def reopened() -> tuple[int, int]:
        again = users.User(**{name: getattr(old, name) for name in old.__struct_fields__} | {"subject": new_secret()})
        return len(await links.list_all(worlds.context, old)), len(await links.list_all(worlds.context, again))

    assert asyncio.run(reopened()) == (1, 0)


def test_unlink_all_ends_every_link_of_an_account(worlds: Worlds) -> None:
    worlds.linked()
    worlds.linked("signed")
    assert worlds.kept()["links"] == 2
    asyncio.run(links.unlink_all(worlds.context, worlds.user()))
    assert worlds.kept() == {"links": 0, "tokens": 0}
    assert worlds.their_tokens() == 0


def test_removing_an_organization_ends_only_its_links(worlds: Worlds) -> None:
    worlds.linked()
    other = worlds.linked("signed")
    assert asyncio.run(organizations.remove(worlds.ours.store, "neighbour"))
    assert worlds.kept() == {"links": 1, "tokens": 1}
    assert "Hives" in worlds.ours.http.get(other).text
    assert not asyncio.run(organizations.remove(worlds.ours.store, "neighbour"))


def test_tokens_are_not_sent_to_a_changed_organization_base(worlds: Worlds) -> None:
    page = worlds.linked()
    moved = organizations.Organization(NEIGHBOUR.id, NEIGHBOUR.name, "https://elsewhere.example/fhir", NEIGHBOUR.client_id)
    asyncio.run(organizations.add(worlds.ours.smart, moved))
    worlds.clock.forward(DAY)
    worlds.sign_in()
    assert "Link the account again" in worlds.ours.http.get(page).text
    assert not any("elsewhere.example" in url for _, url, _ in worlds.wire.calls)


def test_remote_tokens_are_not_stored_in_plain_text(worlds: Worlds) -> None:
    issued: list[str] = []

    async def note(request: httpx.Request) -> httpx.Response:
        answer = await worlds.wire.app.handle_async_request(request)
        body = await answer.aread()
        issued.extend(value for name, value in json.loads(body).items() if name in ("access_token", "refresh_token"))
        return httpx.Response(answer.status_code, content=body, headers={"content-type": "application/json"})

    worlds.wire.instead["/oauth/token"] = note
    worlds.linked()
    kinds = ("link-tokens", "link-state", "linking-key", "linked-organisation")
    kept = repr([asyncio.run(worlds.ours.store.key_values.list_all(kind, 0)) for kind in kinds])
    assert len(issued) == 2
    assert "our-portal" in kept  # the control
    assert not any(token in kept for token in issued)


def test_linked_pages_format_every_date_in_words(worlds: Worlds) -> None:
    pages = (worlds.linked(), "/links")
    texts = [worlds.ours.http.get(page).text for page in pages]
    told = dates.format_instant_date(worlds.clock(), worlds.ours.smart.zone)
    assert all(f"inked on {told}" in text for text in texts)
    assert "2 January 2026" in texts[0]
    assert not [found for text in texts for found in re.findall(r"\d{4}-\d\d(?:-\d\d)?", text)]


def test_linked_accounts_have_the_switch_between_records_and_the_menu(worlds: Worlds) -> None:
    page = worlds.ours.http.get("/links").text
    assert re.search(r'class="switch".*?href="/r/[^"]+"', page, re.DOTALL)
    assert page.index('class="menu"') < page.index("<h1>")
