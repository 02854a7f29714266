"""A server with a small store (two adults, a child with a parent), and browsers that sign in to it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from fhir_server import app as wiring
from fhir_server import jsontext, portal
from fhir_server.clock import MAX_INSTANT
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility, VisibilityClause
from fhir_server.settings import Settings
from fhir_server.smart import demo, routes
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.core.mail import Mail
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens import tokens
from fhir_server.store import Transaction, open_store
from fhir_server.writing.draft import parse_draft
from fhir_server.writing.writer import ResourceWriter
from tests.smart.environment import Browser, Clock

SEEDS = Path(__file__).parents[2] / "seed_bundles"
START = int(datetime(2026, 11, 21, 15, tzinfo=UTC).timestamp()) * SECOND
FACTS = ("Patient", "RelatedPerson", "Consent")
PEOPLE = ("adult", "newly-adult", "parent-a", "proxy-standard", "proxy-full", "clinician")


@cache
def _facts() -> tuple[bytes, ...]:
    """The Patients, RelatedPersons and Consents of the seeds, without the grant to ``proxy-standard``."""
    found = []
    for path in sorted(SEEDS.glob("*.json")):
        for entry in json.loads(path.read_text())["entry"]:
            one = entry["resource"]
            if one["resourceType"] in FACTS and not one["id"].startswith("proxy-standard"):
                found.append(json.dumps(_alone(one)).encode())
    return tuple(sorted(found, key=lambda text: FACTS.index(json.loads(text)["resourceType"])))


def _alone(resource: dict[str, Any]) -> dict[str, Any]:
    for name in ("managingOrganization", "generalPractitioner", "organization"):
        resource.pop(name, None)
    return resource


@cache
def _accounts() -> tuple[tuple[str, bytes], ...]:
    async def made() -> tuple[tuple[str, bytes], ...]:
        store = open_store("memory:")
        for username, name, role, patient, practitioner, related in demo.PEOPLE:
            if username in PEOPLE:
                ids = {"patient": patient, "practitioner": practitioner}
                linked = () if username == "proxy-standard" else related
                await users.create(store, username, demo.PASSWORD, role, name=name, related_persons=linked, **ids)
        return await store.key_values.list_all("user", 0)

    return asyncio.run(made())


class Form(HTMLParser):
    """The hidden fields of the forms with this ``action``, one dict for each form."""

    def __init__(self, html: str, action: str) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self._action, self._inside = action, False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = given.get("action") == self._action
            if self._inside:
                self.forms.append({})
        if tag == "input" and self._inside and given.get("type") == "hidden":
            self.forms[-1][given["name"] or ""] = given.get("value") or ""


@dataclass
class Visitor:
    """A person with a browser."""

    browser: Browser

    def get(self, path: str) -> httpx.Response:
        return self.browser.get(path)

    def send(self, page: str, action: str, which: int = 0, **fields: str) -> httpx.Response:
        """Open ``page`` and submit its ``which``-th form with this ``action`` and these fields."""
        return self.post(action, **(Form(self.get(page).text, action).forms[which] | fields))

    def post(self, action: str, **fields: str) -> httpx.Response:
        return self.browser.post(action, data=fields)

    def share(self, **fields: str) -> httpx.Response:
        given = {"name": "Sam Standard", "relationship": "SIB", "level": "standard"} | fields
        return self.send("/sharing", "/sharing", **given)


class World:
    def __init__(self, url: str = "memory:", mail: Mail | None = None) -> None:
        self.clock = Clock()
        self.clock.micros = START
        made = wiring.build_components(Settings(store=url, mode="test"))
        made.store.key_values.now = self.clock
        smart = replace(made.smart, now=self.clock, mail=mail or made.smart.mail)
        self.made = replace(made, clock=self.clock, smart=smart)
        self.store = made.store
        asyncio.run(self._fill(_accounts()))
        self.app = FastAPI()
        self.app.include_router(routes.router(smart))
        self.api = wiring.fhir_api(self.made)
        self.app.include_router(portal.router(smart, made.service, self.api.ask))
        self.app.mount("/fhir", self.api)

    async def _fill(self, accounts: tuple[tuple[str, bytes], ...]) -> None:
        for name, record in accounts:
            await self.store.key_values.put("user", name, record, MAX_INSTANT)
        for client in demo.CLIENTS:
            if client.method == "none":
                await clients.save(self.store, client)
        drafts = [parse_draft(text) for text in _facts()]

        async def job(tx: Transaction) -> None:
            writing = ResourceWriter(tx, self.made.labeler, self.made.service.base, self.clock())
            for one in drafts:
                await writing.write(one, str(one.id), takes_labels=True, previous=None)
            await writing.relabel_pending()

        await self.store.write(job)

    def visitor(self) -> Visitor:
        return Visitor(Browser(self.app))

    def signed_in(self, username: str) -> Visitor:
        visitor = self.visitor()
        assert visitor.send("/sign-in", "/sign-in", username=username, password=demo.PASSWORD).status_code == 303
        return visitor

    def token(self, username: str, patient: str, family: str = "family", scope: str = "patient/*.rs") -> str:
        """Issue an access token of this person to the demo app."""
        grant = TokenGrant("demo-public", scope, family, username, patient)
        return asyncio.run(tokens.issue(self.store, grant, self.clock())).access

    def status(self, token: str, path: str = "Patient/adult") -> int:
        """Return the status of a FHIR API request with this token."""
        headers = {"Authorization": f"Bearer {token}"}
        return Browser(self.app).get(f"/fhir/{path}", headers=headers).status_code

    def stored(self, type: str) -> dict[str, dict[str, Any]]:
        """Return all current resources of a type, by id, regardless of permissions."""

        async def read() -> dict[str, dict[str, Any]]:
            async with self.store.snapshot() as snapshot:
                window = VisibilityClause(None, frozenset(range(len(await snapshot.classes()))), released_only=False)
                page = await snapshot.find(type, EVERYTHING, Visibility((window,), self.clock()), limit=1000)
                return {row.id: jsontext.parse(row.body) for row in page.rows}

        return asyncio.run(read())

    async def add(self, resource: dict[str, Any]) -> None:
        """Write a resource that does not exist yet."""

        async def job(tx: Transaction) -> None:
            writing = ResourceWriter(tx, self.made.labeler, self.made.service.base, self.clock())
            await writing.write(parse_draft(json.dumps(resource).encode()), resource["id"], takes_labels=True, previous=None)

        await self.store.write(job)

    async def change(self, type: str, id: str, members: dict[str, Any]) -> None:
        """Write a new version of a resource with these members."""

        async def job(tx: Transaction) -> None:
            row = await tx.read_unfiltered(type, id)
            assert row is not None
            text = json.dumps(jsontext.parse(row.body) | members).encode()
            writing = ResourceWriter(tx, self.made.labeler, self.made.service.base, self.clock())
            await writing.write(parse_draft(text), id, takes_labels=True, previous=row)

        await self.store.write(job)

    def account(self, username: str) -> users.User:
        found = asyncio.run(users.find(self.store, username))
        assert found is not None
        return found


def code_in(response: httpx.Response) -> str:
    """The activation code that a page shows."""
    return response.text.partition('<p class="code"><code>')[2].partition("</code>")[0]
