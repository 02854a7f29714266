"""A whole server in this process, for tests: real components, a clock that tests set, requests as ASGI calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from fhir_server import app
from fhir_server.clock import MAX_INSTANT
from fhir_server.fhir_xml import to_json
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.settings import Settings
from fhir_server.smart.tokens import tokens
from fhir_server.store import open_store
from tests.mongo.shared_mongod import emptied_url

ROOT = Path(__file__).parents[1]
NOON = "2026-11-21T12:00:00-05:00"
T = TypeVar("T")
PREPARED = ("user", "client", "demo-client-keys", "signing-key", "health-card-key")
_prepared: dict[tuple[str, str], bytes] = {}
KEY = "a key that is long enough for tests of this server"


def store_url(kind: str, folder: Path) -> str:
    """The URL of a new, empty store.  ``kind`` is ``memory``, ``sqlite`` or ``mongodb``."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'fhir.sqlite'}"
    return emptied_url() if kind == "mongodb" else "memory:"


def make_store(url: str) -> None:
    """Make an empty store, as ``fhir-server create-store`` does, but without keys, which take seconds."""

    async def make() -> None:
        store = open_store(url)
        await store.prepare()
        await store.close()

    asyncio.run(make())


class Answer:
    """One response: status, headers by lower-case name, and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        """The value of the body, also of one in XML."""
        is_xml = self.headers.get("content-type", "").startswith("application/fhir+xml")
        return json.loads(to_json(self.body) if is_xml else self.body)

    def ids(self, type: str | None = None) -> list[str]:
        """The ids of a Bundle's resources, in order; only those of ``type`` if it is given."""
        resources = [entry["resource"] for entry in self.json.get("entry", []) if "resource" in entry]
        return [resource["id"] for resource in resources if type in (None, resource["resourceType"])]


class Served:
    """A server on ``store``, with the seed records shifted to the date of ``at`` unless ``seeds`` is false."""

    def __init__(
        self, store: str = "memory:", *, at: str = NOON, seeds: bool = True, new_id: Callable[[], str] | None = None, **settings: Any
    ) -> None:
        self._runner = asyncio.Runner()
        self._now = micros(at)
        self.settings = Settings(store=store, mode="test", secret_key=KEY, **settings)
        self.parts = app.build_components(self.settings, new_id=new_id)
        clock = lambda: self._now  # noqa: E731
        self.parts = replace(self.parts, clock=clock, smart=replace(self.parts.smart, now=clock))
        self.parts.store.key_values.now = clock
        self.api = app.fhir_api(self.parts)
        self.run(self._prepare())
        if seeds:
            self.load(ROOT / "seed_bundles", day=date.fromisoformat(at[:10]))

    async def _prepare(self) -> None:
        """As at a first start, but with the keys and accounts that the first server of this process made, which takes seconds."""
        stored = self.parts.store.key_values
        if not await stored.list_all("signing-key", 0):
            for (kind, key), value in _prepared.items():
                await stored.put_if_absent(kind, key, value, MAX_INSTANT)
        await self.parts.prepare()
        if not _prepared:
            _prepared.update({(kind, key): value for kind in PREPARED for key, value in await stored.list_all(kind, 0)})

    def run(self, job: Awaitable[T]) -> T:
        return self._runner.run(_await(job))

    def close(self) -> None:
        self.run(self.parts.close())
        self._runner.close()

    def at(self, instant: str | int) -> None:
        """Set the clock."""
        self._now = instant if isinstance(instant, int) else micros(instant)

    def load(self, *paths: Path, day: date | None = None) -> LoadReport:
        report = LoadReport()
        profiles = self.parts.service.profiles
        loader = Loader(self.parts.store, self.parts.labeler, self.settings.base, self.parts.clock, profiles=profiles)
        for path in list_files(paths):
            for unit in read_units(path, b"test", day):
                self.run(loader.load(unit, report))
        return report

    def token(
        self, client: str = "demo-backend", scope: str = "system/*.cruds", user: str | None = None, patient: str | None = None
    ) -> str:
        return self.run(tokens.issue_operator_token(self.parts.store, client, scope, self._now, username=user, patient=patient))

    def app_token(self, user: str, patient: str, scope: str = "patient/*.cruds") -> str:
        """An access token as a SMART app gets it for this person and patient record."""
        return self.token("demo-public", scope, user, patient)

    def request(
        self,
        token: str | None,
        method: str,
        path: str,
        *,
        body: Any = None,
        form: Iterable[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request.  ``path`` includes the query and is relative to the FHIR base, or a URL below it."""
        path = path.removeprefix(self.settings.base).lstrip("/")
        path, _, query = path.partition("?")
        sent = {"authorization": f"Bearer {token}"} if token else {}
        text = b""
        if form is not None:
            text, sent["content-type"] = urlencode(list(form)).encode(), "application/x-www-form-urlencoded"
        elif body is not None:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["content-type"] = "application/fhir+json"
        return self.run(call(self.api, method, "/" + path, query.encode(), {**sent, **(headers or {})}, text))

    def get(self, token: str | None, path: str, **headers: str) -> Answer:
        return self.request(token, "GET", path, headers=headers)

    def all_ids(self, token: str, path: str) -> list[str]:
        """The ids of the matches on all pages of a search."""
        ids: list[str] = []
        while path:
            page = self.get(token, path).json
            ids += [entry["resource"]["id"] for entry in page.get("entry", []) if entry["search"]["mode"] == "match"]
            path = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        return ids


async def _await(job: Awaitable[T]) -> T:
    return await job


async def call(api: Any, method: str, path: str, query: bytes, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send one request to an ASGI application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": raw, "client": ("192.0.2.7", 4711)}
    await api(scope, receive, send)
    response_headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], response_headers, b"".join(message.get("body", b"") for message in sent[1:]))


def micros(instant: str) -> int:
    """Microseconds since 1970 UTC of an ISO 8601 instant with zone."""
    return (datetime.fromisoformat(instant) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
