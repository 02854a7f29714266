"""A small test server: the demo users and clients on a memory store, an adjustable clock, and a browser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart import demo
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import SECOND, SmartContext
from fhir_server.smart.core.persons import Person, RecordChoice
from fhir_server.smart.discovery.documents import smart_configuration
from fhir_server.smart.routes import router
from fhir_server.store import Store, open_store

ORIGIN = "http://127.0.0.1:8000"
BASE = f"{ORIGIN}/fhir"
TOKEN_URL = f"{ORIGIN}/oauth/token"
START = 1_795_000_000 * SECOND
VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SCOPE = "openid fhirUser launch/patient offline_access patient/*.rs"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Clock:
    def __init__(self) -> None:
        self.micros = START

    def __call__(self) -> int:
        return self.micros

    def forward(self, micros: int) -> None:
        self.micros += micros


async def records(person: Person, now: int) -> Sequence[RecordChoice]:
    own = [RecordChoice(person.patient, person.name, "Your record")] if person.patient else []
    cared = [
        RecordChoice(child, child.title(), "Your child", "Some visits are private.", f"RelatedPerson/{related}")
        for related in sorted(person.related_persons)
        for child in [related.rpartition("-of-")[2]]
        if child != "newly-adult"
    ]
    return own + cared


@cache
def _prepared() -> dict[str, tuple[tuple[str, bytes], ...]]:
    async def prepare() -> dict[str, tuple[tuple[str, bytes], ...]]:
        store, clock = open_store("memory:"), Clock()
        await demo.load(store)
        await signing_keys.prepare(SmartContext(store, ORIGIN, BASE, clock, records))
        kinds = ("user", "client", "demo-client-keys", "signing-key", "health-card-key", "staff-app")
        return {kind: await store.key_values.list_all(kind, 0) for kind in kinds}

    return asyncio.run(prepare())


async def _copied(clock: Clock, prepared: dict[str, tuple[tuple[str, bytes], ...]]) -> Store:
    store = open_store("memory:")
    store.key_values.now = clock
    for kind, kept in prepared.items():
        for key, value in kept:
            await store.key_values.put(kind, key, value, MAX_INSTANT)
    return store


class Page(HTMLParser):
    """A parsed HTML page: the fields that its form submits, its radio buttons, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action, self.text, self._other = "", "", False
        self.sent: list[tuple[str, str]] = []
        self.radios: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._other = given.get("action") in ("/sign-out", "/oauth/cancel", "/oauth/record/search")
            self.action = self.action if self._other else given.get("action") or ""
        if tag != "input" or self._other or not self.action or not given.get("name"):
            return
        if given.get("type") == "radio":
            self.radios.append(given.get("value") or "")
        elif given.get("type") != "checkbox" or "checked" in given:
            self.sent.append((given["name"] or "", given.get("value") or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


class Refresh(HTMLParser):
    """The URL that a page opens by itself (``meta http-equiv="refresh"``), or ""."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.url = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta" and given.get("http-equiv") == "refresh":
            self.url = (given.get("content") or "").partition("url=")[2]


class Browser:
    """An HTTP client that keeps cookies and follows no redirects.  Each request runs in a separate event loop.

    It passes the page that leads on to an app, as a browser does: the answer to the form then has the app's URL as Location.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.cookies = httpx.Cookies()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._sent(method, path, options))

    async def _sent(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, cookies=self.cookies) as client:
            response = await client.request(method, path, **options)
            if response.headers.get("location", "").startswith("/to-app?"):
                page = await client.get(response.headers["location"])
                assert page.status_code == 200, page.text
                response.headers["location"] = Refresh(page.text).url
            self.cookies = client.cookies
            return response


@dataclass
class World:
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.store = asyncio.run(_copied(self.clock, _prepared()))
        self.smart = SmartContext(self.store, ORIGIN, BASE, self.clock, records, mode="test")
        self.open()

    def open(self) -> None:
        """Build the application.  This is the slowest part of the setup."""
        self.app = FastAPI(routes=list(router(self.smart).routes))

        @self.app.get("/fhir/.well-known/smart-configuration")
        async def discovery() -> dict[str, Any]:
            return smart_configuration(self.smart)

        self.http = self.browser()

    def browser(self) -> Browser:
        return Browser(self.app)

    # pages

    def asked(self, **changes: str | None) -> dict[str, str]:
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "demo-public",
            "redirect_uri": demo.REDIRECT,
            "scope": SCOPE,
            "state": "s t/+%&é",
            "aud": BASE,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "nonce": "n-1",
        }
        return {name: value for name, value in (given | changes).items() if value is not None}

    def authorize(self, **changes: str | None) -> httpx.Response:
        return self.http.get("/oauth/authorize", params=self.asked(**changes))

    def follow(self, response: httpx.Response) -> httpx.Response:
        while response.is_redirect and response.headers["location"].startswith("/"):
            response = self.http.get(response.headers["location"])
        return response

    def submit(self, response: httpx.Response, **fields: str) -> httpx.Response:
        page = Page(response.text)
        sent = [(name, value) for name, value in page.sent if name not in fields] + list(fields.items())
        return self.follow(self.http.post(page.action, data=_grouped(sent)))

    def sign_in(self, response: httpx.Response, username: str, password: str = demo.PASSWORD) -> httpx.Response:
        return self.submit(response, username=username, password=password)

    def consent_page(self, username: str = "adult", patient: str = "adult", **changes: str | None) -> httpx.Response:
        response = self.sign_in(self.follow(self.authorize(**changes)), username)
        return self.submit(response, patient=patient) if Page(response.text).radios else response

    def code(self, username: str = "adult", patient: str = "adult", **changes: str | None) -> str:
        self.http.cookies.clear()
        answer = self.consent_page(username, patient, **changes)
        if not answer.is_redirect:  # staff are not asked for an approved app
            answer = self.submit(answer, decision="allow")
        return query(answer.headers["location"])["code"]

    # token endpoint

    def exchange(self, code: str, auth: tuple[str, str] | None = None, **changes: str | None) -> httpx.Response:
        given: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": demo.REDIRECT,
            "code_verifier": VERIFIER,
            "client_id": None if auth or "client_assertion" in changes else "demo-public",
        }
        return self.post("/oauth/token", auth, **(given | changes))

    def post(self, path: str, auth: tuple[str, str] | None = None, **fields: str | None) -> httpx.Response:
        return self.http.post(path, data={n: v for n, v in fields.items() if v is not None}, auth=auth)

    def tokens(self, username: str = "adult", patient: str = "adult", **changes: str | None) -> dict[str, Any]:
        response = self.exchange(self.code(username, patient, **changes))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def refresh(self, token: str, auth: tuple[str, str] | None = None, **fields: str | None) -> httpx.Response:
        client_id = None if auth else "demo-public"
        return self.post("/oauth/token", auth, **{"client_id": client_id, "grant_type": "refresh_token", "refresh_token": token, **fields})

    def principal(self, token: str) -> Any:
        from fhir_server.smart.tokens.tokens import resolve_principal

        return asyncio.run(resolve_principal(self.store, token, self.clock()))

    # client assertions

    def assertion(self, client_id: str = "demo-backend", alg: str = "RS384", header: dict[str, Any] | None = None, **claims: Any) -> str:
        keyset = private_keys(self.store, client_id)
        key = next(key for key in keyset if key.get("alg") == alg)
        now = self.clock() // SECOND
        stated = {
            "iss": client_id,
            "sub": client_id,
            "aud": TOKEN_URL,
            "exp": now + 300,
            "iat": now,
            "jti": base64.b16encode(hashlib.sha256(repr((client_id, self.clock(), len(claims), alg)).encode()).digest()).decode(),
        } | claims
        stated = {name: value for name, value in stated.items() if value is not None}
        return jwt.encode({"alg": alg, "kid": key.kid} | (header or {}), stated, key, algorithms=[alg])

    def backend(self, assertion: str | None = None, **fields: str | None) -> httpx.Response:
        given: dict[str, str | None] = {
            "grant_type": "client_credentials",
            "scope": "system/*.rs",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(),
        }
        return self.post("/oauth/token", **(given | fields))


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def private_keys(store: Store, client_id: str) -> KeySet:
    kept = asyncio.run(demo.private_keys(store, client_id))
    assert kept is not None
    return _imported(json.dumps(kept))


@cache
def _imported(keys: str) -> KeySet:
    """Import a key set, and cache it.  All test servers share their keys, and the check of an RSA key takes 0.1 seconds."""
    return KeySet.import_key_set(json.loads(keys))


def claims_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a JWT without verification."""
    header, claims, _ = (part + "=" * (-len(part) % 4) for part in token.split("."))
    return json.loads(base64.urlsafe_b64decode(header)), json.loads(base64.urlsafe_b64decode(claims))
