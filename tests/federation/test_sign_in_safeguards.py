"""A user starts the redirect to a provider, and a federated sign-in has the same checks as a password."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from fhir_server.smart.accounts import second_factor, users
from fhir_server.smart.core.context import MINUTE
from fhir_server.smart.routes import router
from tests.federation.environment import FEDERATED, Worlds
from tests.smart.test_second_factor import one_time, seed_on

LEAVE = f"/sign-in/with/{FEDERATED['north'].id}"


def sent_off(worlds: Worlds, site: str | None) -> httpx.Response:
    browser = worlds.ours.http
    browser.get("/sign-in")
    return browser.get(LEAVE, params={"next": "/apps"}, headers={} if site is None else {"Sec-Fetch-Site": site})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_cross_site_request_cannot_start_federated_sign_in(worlds: Worlds, site: str) -> None:
    answer = sent_off(worlds, site)
    assert answer.headers["location"] == "/sign-in?request=&next=%2Fapps"
    assert worlds.wire.calls == []


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_same_origin_request_starts_federated_sign_in(worlds: Worlds, site: str | None) -> None:
    assert sent_off(worlds, site).headers["location"].startswith("http://127.0.0.1:7001/oauth/authorize?")


def test_federated_sign_in_requires_the_second_factor(worlds: Worlds) -> None:
    user = asyncio.run(users.find(worlds.ours.store, "parent-a"))
    assert user is not None
    seed = second_factor.new_seed()
    asyncio.run(second_factor.enroll(worlds.ours.smart, user, seed))
    arrived = worlds.signed_in(next="/apps")
    assert arrived.headers["location"] == "/sign-in/second"
    assert worlds.who() == ""
    page = worlds.ours.http.get("/sign-in/second")
    assert worlds.ours.submit(page, code="000000").status_code == 400
    assert worlds.who() == ""
    worlds.ours.submit(page, code=one_time(seed, worlds.clock()))
    assert worlds.who() == "Pat Parent"


def test_federated_sign_in_sets_up_a_required_second_factor(worlds: Worlds) -> None:
    worlds.ours.smart = replace(worlds.ours.smart, second_factor=frozenset({"patient"}))
    worlds.ours.app = FastAPI()
    worlds.ours.app.include_router(router(worlds.ours.smart, worlds.wire))
    worlds.ours.http = worlds.ours.browser()
    assert worlds.signed_in().headers["location"] == "/sign-in/second"
    page = worlds.ours.http.get("/sign-in/second")
    assert worlds.who() == ""
    worlds.clock.forward(MINUTE)
    worlds.ours.submit(page, code=one_time(seed_on(page), worlds.clock()))
    assert worlds.who() == "Pat Parent"
