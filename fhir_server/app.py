"""Builds the server from its settings: the store, the components and the ASGI application."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from fhir_server import linking, portal
from fhir_server.access.audit_trail import AuditTrail
from fhir_server.access.authentication import Authenticator
from fhir_server.access.chart_search import ChartSearch
from fhir_server.access.record_choices import EncounterChoices, RecordChoices
from fhir_server.access.resolver import PermissionResolver
from fhir_server.access.scope_effects import ScopeEffects
from fhir_server.api import FhirApi, RequestLimits, Scope
from fhir_server.audit import AuditLog
from fhir_server.audit.chain import ChainKeys
from fhir_server.bodies import BodyLimits
from fhir_server.budget import BudgetLimits
from fhir_server.clock import Clock
from fhir_server.consent import policy as policies
from fhir_server.consent.labeling import Labeler
from fhir_server.consent.policy import Policy
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.errors import RETRY_READ_ONLY, Problem
from fhir_server.interactions import openapi, subscription_records
from fhir_server.interactions.capability import capability_statement
from fhir_server.interactions.health_card_content import CardIssuer
from fhir_server.interactions.messages import Request as FhirRequest
from fhir_server.interactions.public_documents import Document, json_document, metadata
from fhir_server.interactions.registry import METADATA, OPENAPI, SMART_CONFIGURATION
from fhir_server.interactions.service import Service, Sources, no_restriction
from fhir_server.interactions.terminology_capabilities import terminology_capabilities
from fhir_server.observability.health import Health
from fhir_server.observability.metrics import Metrics
from fhir_server.observability.middleware import App, Observed
from fhir_server.observability.store_time import timed
from fhir_server.observability.trace_settings import start_traces
from fhir_server.operation.door import Door, Page
from fhir_server.operation.gate import gated
from fhir_server.operation.state import OperationState
from fhir_server.packages.claims import Claims
from fhir_server.packages.validator import ProfileValidator, required_of
from fhir_server.resources import catalog
from fhir_server.root_app import RootApp
from fhir_server.search import zones
from fhir_server.search.cursors import Cursors
from fhir_server.settings import Settings
from fhir_server.smart import demo, routes
from fhir_server.smart.core import health_card_signature, key_check, signing_keys
from fhir_server.smart.core.context import SECOND, SmartContext
from fhir_server.smart.core.encryption import derive_key, seal, unseal
from fhir_server.smart.core.password_rules import PasswordRules
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.smart.discovery import documents
from fhir_server.smart.error_pages import busy_handler, http_error_handler, unavailable_response
from fhir_server.smart.notices import delivery as notices
from fhir_server.smart.notices.mail import open_mail
from fhir_server.smart.tokens import back_channel
from fhir_server.store import Store, open_store, store_file
from fhir_server.subscriptions.build import Subscribers
from fhir_server.web.public_fetch import Hosts
from fhir_server.web.security_headers import security_headers
from fhir_server.writing import write_times
from fhir_server.writing.indexing_steps import keep_indexing
from fhir_server.writing.parser import Parser
from fhir_server.writing.relabeling_steps import keep_relabeling

_log = logging.getLogger("fhir_server")
_PURGE_INTERVAL = 600  # seconds
# Collections of the younger objects for one of all objects, which nobody can interrupt: 10 to 20 ms while a large Bundle is handled.  What
# requests leave needs none (tests/fairness/test_memory.py), so they may be rare; Python's default is 10.
_FULL_COLLECTION = 100
# How long a thread keeps Python's global lock while the event loop waits for it; a request waits for it several times.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Components:
    """The connected components of one server."""

    settings: Settings
    clock: Clock
    store: Store
    policy: Policy
    labeler: Labeler
    smart: SmartContext
    service: Service
    auditor: AuditLog

    @property
    def subscribers(self) -> Subscribers:
        """What delivers the notifications of Subscriptions."""
        record, settings, network = self.auditor.record_request, self.settings, lambda: self.smart.network
        limits = request_limits(settings).budget
        return Subscribers(self.service, network, record, self.clock, limits, settings.origin, settings.max_websockets)

    async def prepare(self) -> None:
        """Prepare the store and the signing keys; in demo and test mode, load the demo's accounts and clients.

        Raises ValueError, with a message for the operator, for a store that cannot be used.
        """
        await self.store.prepare()
        if self.settings.mode != "test":
            write_times.warn_if_behind(await self.store.latest_time(), self.clock())
        await key_check.require_key(self.smart)
        await self.auditor.prepare()
        await signing_keys.prepare(self.smart)
        await key_check.record_key(self.smart)
        if self.settings.mode in ("demo", "test"):
            await demo.load(self.store)

    async def close(self) -> None:
        """Write the rest of the audit log and close the store."""
        await self.service.parser.close()
        try:
            await self.auditor.close()
        finally:
            await self.store.close()


def build_components(
    settings: Settings,
    *,
    new_id: Callable[[], str] | None = None,
    watch_store: Callable[[Store], Store] | None = None,
    require_writable: Callable[[], Awaitable[None]] | None = None,
) -> Components:
    """Build and connect the components.  Raises ValueError, with a message for the operator, for invalid settings.

    ``new_id`` returns new logical ids; the default is random UUIDs.  ``watch_store`` returns the store that all components use.
    ``require_writable`` raises Problem while nothing may be written.
    """
    clock = settings.make_clock()
    policy = policies.load(settings.policy, timezone=settings.timezone)
    store = open_store(settings.store)
    store.key_values.now = clock
    zones.use(settings.base, settings.search_timezone)
    store = watch_store(store) if watch_store else store
    labeler = Labeler(policy, SensitivityCodes.load(settings.ig_path, settings.codes_path), settings.base)
    resolver = PermissionResolver(policy, settings.base)
    auditor = AuditLog(
        store,
        ChainKeys.of(settings),
        durable=settings.audit == "durable",
        anchor_file=Path(settings.audit_anchor_file) if settings.audit_anchor_file else None,
        beside=store_file(settings.store),
        policy=policy.version,
        now=clock,
    )
    cursors = Cursors(_key(settings, b"page links"))
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
        ScopeEffects(store, resolver, policy),
        charts=ChartSearch(store, resolver, cursors, settings.base),
        record_security_event=auditor.record_event,
        second_factor=frozenset(settings.roles_with_second_factor),
        staff_apps=settings.staff_apps,
        passwords=PasswordRules.of((settings.organization_name,), settings.breached_passwords_file),
        zone=policy.timezone,
        former_key=settings.former_secret_key,
        refresh_grace=settings.refresh_grace_seconds * SECOND,
        require_pushed_requests=settings.pushed_requests == "required",
        require_dpop=settings.dpop == "required",
        mail=open_mail(settings.smtp_url, settings.mail_folder, settings.mail_from, settings.organization_name, clock),
    )
    service = Service(
        store,
        Authenticator(store, resolver),
        labeler,
        policy,
        cursors,
        Parser(settings.max_resource_bytes),
        settings.base,
        settings.max_bundle_entries,
        new_id or (lambda: str(uuid.uuid4())),
        AuditTrail(derive_key(settings.secret_key.encode(), "ids of audit events"), settings.base),
        profile_validator(store, settings),
        CardIssuer(settings.origin, partial(health_card_signature.sign, smart)),
        settings.max_conditional_deletes,
        require_writable or no_restriction,
        settings.search_handling,
        Sources(hosts=Hosts.of(smart.is_demo)),
        Hosts.of(smart.is_demo),
        sealed=partial(seal, smart, subscription_records.SEALED.purpose),
        opened=partial(unseal, smart, subscription_records.SEALED.purpose),
    )
    return Components(settings, clock, store, policy, labeler, smart, service, auditor)


def profile_validator(store: Store, settings: Settings) -> ProfileValidator:
    """Validates resources against profiles, as the settings demand.  Raises ValueError, with a message for the operator."""
    return ProfileValidator(store, required_of(settings.required_profiles), refuses_unknown=settings.unknown_profiles == "refuse")


def application(settings: Settings) -> Observed:
    """Build the whole server as an ASGI application.

    Raises ValueError, with a message for the operator, for invalid settings, also those of OpenTelemetry.
    """
    from fhir_server.scim import router as scim_router  # its models take half a second to build, which commands would wait for

    traces = start_traces(os.environ, catalog())
    # With an address of their own, metrics are not served at the server's port (observability/metrics_server.py).
    metrics = Metrics() if settings.metrics_token or settings.metrics_address else None
    state = OperationState(settings.operation, metrics.set_operation if metrics else _no_report)
    components = build_components(
        settings, watch_store=lambda store: gated(timed(store) if traces else store, state), require_writable=state.require_writable
    )
    api = fhir_api(components)
    health = Health(components.store, lambda: state.operation.level)
    dispatcher = components.subscribers.dispatcher(metrics.set_subscriptions if metrics else _no_counts)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await components.prepare()
        await components.smart.record(SecurityEvent("start-server"))
        await state.begin()
        await api.prepare()
        # Code, definitions and policy stay in memory until the end: exempt them from garbage collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION)
        sys.setswitchinterval(_SWITCH_SECONDS)
        count_pending = metrics.set_pending_labels if metrics else _no_report
        relabel = keep_relabeling(components.store, components.labeler, settings.base, count_pending, lambda: not state.is_read_only)
        index = keep_indexing(components.store, components.labeler, settings.base, components.clock, lambda: not state.is_read_only)
        tasks = [
            asyncio.create_task(state.keep_fresh()),
            asyncio.create_task(_purge_expired(components, state)),
            asyncio.create_task(relabel, name="relabeling"),
            asyncio.create_task(index, name="indexing of search parameters"),
            asyncio.create_task(components.auditor.pending.keep_appending(), name="pending audit lines"),
            asyncio.create_task(back_channel.keep_telling(components.smart), name="back-channel logout"),
            asyncio.create_task(notices.keep_sending(components.smart, lambda: not state.is_read_only), name="notices"),
            asyncio.create_task(dispatcher.keep_delivering(), name="subscriptions"),
        ]
        with health.drain_on_sigterm(settings.drain_seconds):
            yield
        for task in tasks:
            task.cancel()
        try:
            await components.smart.record(SecurityEvent("stop-server"))
        finally:
            await components.close()
            if traces:
                await traces.close()

    pages = FastAPI(title="fhir-server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, **_no_telemetry())
    pages.add_exception_handler(Problem, busy_handler(components.smart))
    for status in (404, 405, 500):
        pages.add_exception_handler(status, http_error_handler(components.smart))
    pages.include_router(routes.router(components.smart))
    pages.include_router(portal.router(components.smart, components.service, api.ask))
    pages.include_router(linking.router(components.smart))
    pages.include_router(scim_router(components.smart))
    token = "" if settings.metrics_address else settings.metrics_token
    refuse = _refusing_page(components.smart)
    sockets = Door(components.subscribers.socket_app(dispatcher.sockets), state, refuse)
    served: App = RootApp(Door(api, state, refuse), Door(pages, state, refuse), settings.origin, sockets)
    return Observed(traces.watched(served) if traces else served, health, metrics, token, headers=security_headers(settings.origin))


def _no_telemetry() -> dict[str, Any]:
    """The option of FastAPI's versions that write traces and logs of their own, with paths, queries and messages: none of that."""
    if "telemetry" not in signature(FastAPI).parameters:
        return {}
    names = ("tracing", "metrics", "logs", "operation_spans", "auto_configure")
    return {"telemetry": dict.fromkeys(names, False)}


def _no_report(_: int) -> None:
    """Take the number of rows whose labels are pending, without metrics."""


def _no_counts(_: Mapping[str, int]) -> None:
    """Take the numbers of Subscriptions, without metrics."""


def _refusing_page(smart: SmartContext) -> Page:
    def page(scope: Scope, text: str) -> App:
        return unavailable_response(smart, Request(scope), text, RETRY_READ_ONLY)

    return page


async def _purge_expired(components: Components, state: OperationState) -> None:
    """Delete expired key-value entries at regular intervals, unless the server is read-only."""
    while True:
        await asyncio.sleep(_PURGE_INTERVAL)
        if state.is_read_only:
            continue
        try:
            await components.store.key_values.purge(components.clock())
        except Exception:
            _log.exception("Expired entries could not be deleted; the server will try again.")


def fhir_api(components: Components) -> FhirApi:
    """Build the FHIR API, to be mounted at the FHIR base.  Its public documents are built on first use."""
    settings = components.settings
    started = components.clock()

    def configuration() -> dict[str, Any]:
        return documents.smart_configuration(components.smart)

    def capability(claims: Claims, *, normative: bool = False) -> dict[str, Any]:
        found = configuration()
        oauth = {name: found[f"{endpoint}_endpoint"] for name, endpoint in _OAUTH_URIS.items()}
        several = settings.max_conditional_deletes > 1
        return capability_statement(settings.base, oauth, started, claims, several_deletes=several, normative=normative)

    def smart_configuration(_: FhirRequest) -> bytes:
        return json.dumps(configuration(), ensure_ascii=False, separators=(",", ":")).encode()

    modes = {
        "full": capability,
        "normative": lambda claims: capability(claims, normative=True),
        "terminology": lambda _: terminology_capabilities(settings.base, started),
    }
    public: dict[tuple[str, ...], Document] = {
        METADATA: metadata(modes, components.service.profiles.claims),
        SMART_CONFIGURATION: json_document(smart_configuration),
        OPENAPI: json_document(lambda request: openapi.document(settings.base, request.query)),
    }
    limits, padding = request_limits(settings), _key(settings, b"length of compressed answers")
    return FhirApi(components.service, components.clock, components.auditor, limits, public, components.smart, padding_key=padding)


# Names in SMART's extension of the CapabilityStatement, and the endpoints as RFC 8414 and SMART call them.
_OAUTH_URIS = {
    "authorize": "authorization",
    "token": "token",
    "introspect": "introspection",
    "manage": "management",
    "register": "registration",
    "revoke": "revocation",
}


def request_limits(settings: Settings) -> RequestLimits:
    """The limits of each request to the FHIR API."""
    return RequestLimits(
        BodyLimits(settings.max_body_bytes, settings.max_resource_bytes),
        BudgetLimits(settings.max_request_seconds, settings.max_request_resources, settings.max_response_bytes),
        settings.max_client_requests,
        settings.max_working_bytes,
    )


def _key(settings: Settings, use: bytes) -> bytes:
    """A 64-byte key: derived from the secret key, which all processes share, or else random."""
    seed = settings.secret_key.encode() if settings.secret_key else secrets.token_bytes(32)
    return sha256(use + seed).digest() + sha256(use + b", second half" + seed).digest()
