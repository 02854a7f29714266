"""A whole server in one process, for tests: real parts, a clock that can be moved, requests as plain ASGI calls."""

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
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.settings import Settings
from fhir_server.smart.tokens import tokens
from tests.mongo.shared_mongod import emptied_url

ROOT = Path(__file__).parents[1]
NOON = "2026-11-21T12:00:00-05:00"
T = TypeVar("T")
KEY = "a key that is long enough for tests of this server"


def store_url(kind: str, folder: Path) -> str:
    """URL of an empty store: of ``memory:``, ``sqlite`` or ``mongodb``."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'fhir.sqlite'}"
    return emptied_url() if kind == "mongodb" else "memory:"


class Answer:
    """Status, headers (lower case) and body of one answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def ids(self, type: str | None = None) -> list[str]:
        """The ids in a Bundle, of one type if given, in order."""
        found = [entry["resource"] for entry in self.json.get("entry", []) if "resource" in entry]
        return [one["id"] for one in found if type in (None, one["resourceType"])]


class Served:
    """A server on ``store``, with the seed bundles loaded as of the clock's day unless ``seeds`` is false."""

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
        self.run(self.parts.prepare())
        if seeds:
            self.load(ROOT / "seed_bundles", day=date.fromisoformat(at[:10]))

    def run(self, job: Awaitable[T]) -> T:
        return self._runner.run(_awaited(job))

    def close(self) -> None:
        self.run(self.parts.close())
        self._runner.close()

    def at(self, instant: str | int) -> None:
        """Move the clock."""
        self._now = instant if isinstance(instant, int) else micros(instant)

    def load(self, *paths: Path, day: date | None = None) -> LoadReport:
        tally = LoadReport()
        loader = Loader(self.parts.store, self.parts.labeler, self.settings.base, self.parts.clock)
        for path in list_files(paths):
            for unit in read_units(path, b"test", day):
                self.run(loader.load(unit, tally))
        return tally

    def token(
        self, client: str = "demo-backend", scope: str = "system/*.cruds", user: str | None = None, patient: str | None = None
    ) -> str:
        return self.run(tokens.issue_operator_token(self.parts.store, client, scope, self._now, username=user, patient=patient))

    def app_token(self, user: str, patient: str, scope: str = "patient/*.cruds") -> str:
        """A token such as a SMART app gets for this person and record."""
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
        """``path`` is below the FHIR base, with its query; an absolute address under the base is cut."""
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
        """The ids of all pages of a search, matches only."""
        found: list[str] = []
        while path:
            page = self.get(token, path).json
            found += [entry["resource"]["id"] for entry in page.get("entry", []) if entry["search"]["mode"] == "match"]
            path = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        return found


async def _awaited(job: Awaitable[T]) -> T:
    return await job


async def call(api: Any, method: str, path: str, query: bytes, headers: Mapping[str, str], body: bytes) -> Answer:
    """One request to an ASGI application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await api({"type": "http", "method": method, "path": path, "query_string": query, "headers": raw}, receive, send)
    answered = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]))


def micros(instant: str) -> int:
    """Microseconds since 1970 UTC of an ISO 8601 instant with zone."""
    return (datetime.fromisoformat(instant) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
