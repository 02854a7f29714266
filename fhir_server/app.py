"""The composition root: settings -> store, rooms, routes.  Nothing here decides anything."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from fastapi import FastAPI

from fhir_server import linking, portal
from fhir_server.access.authentication import Authenticator
from fhir_server.access.permissions import PermissionResolver
from fhir_server.access.record_choices import EncounterChoices, RecordChoices
from fhir_server.api import FhirApi, Receive, Scope, Send
from fhir_server.audit import AuditLog
from fhir_server.clock import Clock
from fhir_server.consent import policy as policies
from fhir_server.consent.labeling import Labeler
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.errors import Problem
from fhir_server.interactions.capability import capability_statement
from fhir_server.interactions.messages import JSON, Response
from fhir_server.interactions.service import Service
from fhir_server.search.cursors import Cursors
from fhir_server.settings import Settings
from fhir_server.smart import demo, routes
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.password_rules import PasswordRules
from fhir_server.smart.discovery import documents
from fhir_server.smart.error_pages import busy_handler, http_error_handler
from fhir_server.store import Store, open_store
from fhir_server.web.security_headers import security_headers, with_security_headers

_log = logging.getLogger("fhir_server")
_BASE = "/fhir"
_SWEEP = 600  # seconds between two looks for expired secrets


@dataclass(frozen=True, slots=True)
class Components:
    """The rooms of one server, wired."""

    settings: Settings
    clock: Clock
    store: Store
    policy: Policy
    labeler: Labeler
    smart: SmartContext
    service: Service
    auditor: AuditLog

    async def prepare(self) -> None:
        """What must be there before the first request: the store, signing keys, and in demo and test mode the demo's people and clients.

        Raises ValueError, worded for the operator, for a store that will not do.
        """
        await self.store.prepare()
        await signing_keys.prepare(self.smart)
        if self.settings.mode in ("demo", "test"):
            await demo.load(self.store)

    async def close(self) -> None:
        await self.auditor.close()
        await self.store.close()


def build_components(settings: Settings, *, new_id: Callable[[], str] | None = None) -> Components:
    """Wire a server.  Raises ValueError, worded for the operator, for settings that cannot work.

    ``new_id`` replaces the source of fresh logical ids (tests need the same ids in two worlds).
    """
    clock = settings.make_clock()
    policy = policies.load(settings.policy, timezone=settings.timezone)
    store = open_store(settings.store)
    store.key_values.now = clock
    labeler = Labeler(policy, SensitivityCodes.load(settings.ig_path), settings.base)
    resolver = PermissionResolver(policy, settings.base)
    auditor = AuditLog(store)
    smart = SmartContext(
        store,
        settings.origin,
        settings.base,
        clock,
        RecordChoices(store, resolver, policy),
        settings.organization_name,
        settings.mode,
        settings.secret_key,
        EncounterChoices(store, resolver),
        record_security_event=auditor.record_event,
        second_factor=frozenset(settings.roles_with_second_factor),
        passwords=PasswordRules.of((settings.organization_name,), settings.breached_passwords_file),
        zone=policy.timezone,
    )
    cursors = Cursors(_cursor_key(settings))
    fresh = new_id or (lambda: str(uuid.uuid4()))
    service = Service(store, Authenticator(store, resolver), labeler, policy, cursors, settings.base, settings.max_bundle_entries, fresh)
    return Components(settings, clock, store, policy, labeler, smart, service, auditor)


def application(settings: Settings) -> RootApp:
    """The whole server as an ASGI application."""
    made = build_components(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await made.prepare()
        # What stands now (code, definitions, policy) stands for good: no use looking through it at every collection.
        gc.collect()
        gc.freeze()
        sweeping = asyncio.create_task(_sweep_expired(made))
        yield
        sweeping.cancel()
        await made.close()

    app = FastAPI(title="fhir-server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(Problem, busy_handler(made.smart))
    for status in (404, 405, 500):
        app.add_exception_handler(status, http_error_handler(made.smart))
    app.include_router(routes.router(made.smart))
    app.include_router(portal.router(made.smart, made.service))
    app.include_router(linking.router(made.smart))
    return RootApp(fhir_api(made), app, settings.origin)


async def _sweep_expired(made: Components) -> None:
    """Now and then, take away secrets that have expired."""
    while True:
        await asyncio.sleep(_SWEEP)
        try:
            await made.store.key_values.purge(made.clock())
        except Exception:
            _log.exception("Expired secrets could not be taken away; it will be tried again.")


class RootApp:
    """Everything at one origin: the FHIR API under its base, and the rest.

    The API stands beside FastAPI and not in it, whose middleware and list of routes cost more than a read; and a mount
    answers the base without a slash behind it, where transactions are sent, with a redirect.
    """

    def __init__(self, api: FhirApi, pages: FastAPI, origin: str = "") -> None:
        self._api = api
        self._pages = pages
        self._security_headers = security_headers(origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http":
            send = with_security_headers(send, self._security_headers)
        if scope["type"] == "http" and (path == _BASE or path.startswith(_BASE + "/")):
            scope["root_path"] = _BASE
            await self._api(scope, receive, send)
        else:
            await self._pages(scope, receive, send)


def fhir_api(made: Components) -> FhirApi:
    """The FHIR API of these parts, to be mounted at the FHIR base."""
    smart = documents.smart_configuration(made.smart)
    oauth = {
        "authorize": smart["authorization_endpoint"],
        "token": smart["token_endpoint"],
        "introspect": smart["introspection_endpoint"],
        "manage": smart["management_endpoint"],
        "register": smart["registration_endpoint"],
        "revoke": smart["revocation_endpoint"],
    }
    statement = _document(capability_statement(made.settings.base, oauth, made.clock()), JSON)
    documents_below = {
        ("metadata",): lambda: statement,
        (".well-known", "smart-configuration"): lambda: _document(documents.smart_configuration(made.smart), b"application/json"),
    }
    return FhirApi(made.service, made.clock, made.auditor, made.settings.max_body_bytes, documents_below)


def _document(value: object, type: bytes) -> Response:
    return Response(200, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), ((b"content-type", type),))


def _cursor_key(settings: Settings) -> bytes:
    """The key that seals page links: from the settings where there is one, so that several processes open each other's."""
    seed = settings.secret_key.encode() if settings.secret_key else secrets.token_bytes(32)
    return sha256(b"page links" + seed).digest() + sha256(b"page links, second half" + seed).digest()
