"""One of two servers for comparison: a whole server in this process, called through ASGI, with its own clock and id generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from urllib.parse import unquote_plus, urlencode

import pytest

from fhir_server import app
from fhir_server.api import FhirApi
from fhir_server.clock import MAX_INSTANT
from fhir_server.interactions.messages import AuditContext, Request
from fhir_server.settings import Settings
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import signing_keys
from fhir_server.smart.tokens import tokens
from fhir_server.store import Transaction
from fhir_server.writing.draft import parse_draft
from fhir_server.writing.writer import ResourceWriter

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
NOW = 1_795_262_400 * SECOND  # 2026-11-21T12:00:00Z
ORIGIN = "http://twin.example"
BASE = f"{ORIGIN}/fhir"
KEY = "0123456789abcdef0123456789abcdef"
_CHILDREN = ("teen", "child", "grown", "turning-12", "turning-18")
_PEOPLE = (
    User("parent", "Parent", "patient", "", "s1", None, None, tuple(f"parent-of-{child}" for child in _CHILDREN)),
    User("proxy", "Proxy", "patient", "", "s2", None, None, ("proxy-of-adult",)),
    User("adult", "Adult", "patient", "", "s3", "adult", None, ()),
    User("billing", "Billing", "billing", "", "s5", None, None, ()),
    User("stranger", "Stranger", "patient", "", "s4", None, None, ("stranger",)),
)
_PERSONAL = (
    "patient/*.cruds user/*.cruds patient/Observation.rs?category=laboratory patient/Observation.rs?performer=Practitioner/dr-one"
    " patient/DiagnosticReport.rs?result=Observation/scoped"
)
_NO_KEYS: dict[str, Any] = {"keys": []}
_CLIENTS = (
    Client("app", "App", "app", "none", _PERSONAL, ("http://127.0.0.1/cb",)),
    Client("limited", "Limited feed", "backend", "private_key_jwt", "system/*.cruds", jwks=_NO_KEYS),
    Client("feed", "Feed", "backend", "private_key_jwt", "system/*.cruds", jwks=_NO_KEYS, clearance=("*",), trusted=True),
)


@dataclass(frozen=True)
class Ask:
    """One request.  ``kind`` is the request family.  ``path`` and ``query`` are encoded, and relative to the base URL."""

    kind: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @staticmethod
    def get(kind: str, path: str, pairs: Iterable[tuple[str, str]] = (), **headers: str) -> Ask:
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return Ask(kind, "GET", path, urlencode(list(pairs)), named)

    def sent(self) -> str:
        """Return the content of the request, also decoded, because a response may repeat it."""
        return " ".join((self.path, unquote_plus(self.path), self.query, unquote_plus(self.query), repr(self.headers), self.body.decode()))

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"[{self.kind}] {self.method} {self.path}{query} {dict(self.headers) or ''} {self.body.decode()[:600]}".strip()


@dataclass(frozen=True)
class Answer:
    """One response with its exact bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def bundle(self) -> dict[str, Any]:
        """Return the Bundle in the body, or {} if there is none."""
        value = json.loads(self.body) if self.body[:1] == b"{" else {}
        return value if value.get("resourceType") == "Bundle" else {}

    def link(self, relation: str) -> str | None:
        return next((link["url"] for link in self.bundle().get("link", ()) if link["relation"] == relation), None)

    def location(self) -> str:
        """Where the answer to a request that was accepted is fetched, below the base."""
        return dict(self.headers)[b"content-location"].decode().removeprefix(BASE + "/")

    def bytes(self) -> bytes:
        head = b"\n".join(name + b": " + value for name, value in self.headers)
        return b"%d\n%s\n\n%s" % (self.status, head, self.body)


@dataclass(frozen=True)
class Write:
    """A write of the institution's feed at one instant: a version of a resource, or its deletion (None)."""

    at: int
    type: str
    id: str
    resource: dict[str, Any] | None

    @property
    def name(self) -> str:
        return f"{self.type}/{self.id}"


@dataclass(frozen=True)
class Caller:
    """A caller.  ``kind`` is the actor code of the policy, ``me`` the caller's own reference, ``scope`` the scope of the token."""

    name: str
    kind: str
    patient: str
    me: str = ""
    username: str | None = None
    client: str = "app"
    scope: str = "patient/*.cruds"


@dataclass
class Clock:
    """A clock that changes only when a test moves it."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


class _NoAuditLog:
    """Records nothing: the number of its lines differs between the two servers, and so would the ids of events.

    tests/audit/test_audit_event_search.py compares what callers see of the audit log.
    """

    def with_write(self, request: Request, context: AuditContext) -> Callable[[Transaction, int], None]:
        return lambda transaction, status: None

    async def record_request(self, request: Request, context: AuditContext, status: int) -> None:
        pass

    async def flush(self) -> None:
        pass


@dataclass(frozen=True)
class _Settings(Settings):
    def make_clock(self) -> Callable[[], int]:
        return Clock()


_made_keys: list[tuple[str, bytes]] = []


async def _card_keys() -> list[tuple[str, bytes]]:
    """The records of the keys that sign health cards: the same in all servers of this process, so that their cards are, too."""
    if not _made_keys:
        made = app.build_components(Settings(store="memory:", origin=ORIGIN, mode="test", secret_key=KEY))
        await signing_keys.prepare(made.smart, (signing_keys.CARDS,))
        _made_keys.extend(await made.store.key_values.list_all(signing_keys.CARD_KEY, 0))
    return _made_keys


@dataclass
class World:
    """One server.  Random values come from ``seed``: servers with the same seed generate the same ids and tokens."""

    url: str = "memory:"
    seed: int = 0
    clock: Clock = field(default_factory=Clock)

    async def open(self) -> None:
        """Build the server and store its users and clients."""
        random = Random(self.seed)
        settings = _Settings(store=self.url, origin=ORIGIN, mode="test", secret_key=KEY)
        made = app.build_components(settings, new_id=lambda: f"new-{random.getrandbits(64):016x}")
        from tests.noninterference.import_requests import SOURCES  # which imports this module

        self.parts = replace(made, clock=self.clock, auditor=_NoAuditLog(), service=replace(made.service, sources=SOURCES))
        self.api = FhirApi(self.parts.service, self.clock, self.parts.auditor, app.request_limits(settings), {})
        store = self.parts.store
        for user in _PEOPLE:
            await users.save(store, user)
        for client in _CLIENTS:
            await clients.save(store, client)
        for name, key in await _card_keys():
            await store.key_values.put_if_absent(signing_keys.CARD_KEY, name, key, MAX_INSTANT)

    async def close(self) -> None:
        await self.parts.store.close()

    def serve_documents(self) -> None:
        """Serve the CapabilityStatement and the discovery documents too.  They are slow to build."""
        self.api = app.fhir_api(self.parts)

    async def write(self, write: Write) -> None:
        """Store one write of the feed with the resource writer of the server."""

        async def job(tx: Transaction) -> None:
            writing = ResourceWriter(tx, self.parts.labeler, BASE, write.at)
            current = await tx.read_unfiltered(write.type, write.id)
            if write.resource is None:
                if current is not None and current.interaction != "delete":
                    await writing.delete(current)
                return
            draft = parse_draft(json.dumps(write.resource).encode(), write.type)
            await writing.write(draft, write.id, takes_labels=True, previous=current)
            if current is None:
                await writing.relabel_referrers(write.name)
            await writing.relabel_pending()

        await self.parts.store.write(job)

    async def token(self, caller: Caller, lifetime: int = 60 * MINUTE) -> str:
        """Issue an access token.  Servers with the same seed issue equal tokens."""
        random = Random(f"{self.seed} {caller.name}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokens, "new_secret", lambda: f"secret-{random.getrandbits(128):032x}")
            patch.setattr(tokens, "BACKEND_LIFE", lifetime)
            patch.setattr(tokens, "ACCESS_LIFE", lifetime)
            patient = caller.patient or None if caller.username else None
            return await tokens.issue_operator_token(
                self.parts.store, caller.client, caller.scope, self.clock.now, username=caller.username, patient=patient
            )

    async def ask(self, ask: Ask, token: str) -> Answer:
        """Send one request and return the response."""
        headers = {"accept": "application/fhir+json", "authorization": f"Bearer {token}", **dict(ask.headers)}
        scope = {
            "type": "http", "method": ask.method, "path": f"/fhir/{ask.path}", "root_path": "/fhir", "query_string": ask.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": ask.body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.api(scope, receive, send)
        return Answer(sent[0]["status"], tuple(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:]))

    def saved(self) -> Any:
        """Return the state for :meth:`restore`.  Only the memory store supports this."""
        return self.parts.store.state.copy()  # type: ignore[attr-defined]

    def restore(self, saved: Any) -> None:
        """Reset the store to the saved state, and reset caches, id generator and clock."""
        random = Random(self.seed)
        self.parts.store.state = saved.copy()  # type: ignore[attr-defined]
        service = replace(
            self.parts.service,
            authenticator=type(self.parts.service.authenticator)(self.parts.store, self.parts.service.authenticator._resolver),
        )
        service.authenticator._resolver._cache.clear()
        service = replace(service, new_id=lambda: f"new-{random.getrandbits(64):016x}")
        self.parts = replace(self.parts, service=service)
        self.api._service = service
        self.clock.now = NOW


FEED = Caller("feed", "BE", "", client="feed", scope="system/*.cruds")
