"""How tests guess a password: at the account's limits, and at the page."""

from __future__ import annotations

import asyncio

from fhir_server.smart.accounts.password_sign_in import check_password_sign_in
from tests.smart.environment import Browser, Page, World


def guess(world: World, username: str, password: str, address: str = "10.0.0.1", device: str = "") -> bool:
    return asyncio.run(check_password_sign_in(world.store, username, password, address, world.clock(), device)) is not None


def tried(world: World, browser: Browser, username: str, password: str) -> bool:
    """Whether this browser can sign in."""
    fields = dict(Page(browser.get("/sign-in").text).sent) | {"username": username, "password": password}
    return browser.post("/sign-in", data=fields).status_code == 303
