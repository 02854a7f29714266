"""The FHIR API as an ASGI application: reads requests, calls the route's handler, records the request in the audit log.

It reads no stored data.  Each error becomes an OperationOutcome.  Token, scope and interaction are decided from the head of a
request, before its body is read: without a good token nothing is read or parsed, and the answer tells nothing about the body.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from fhir_server import budget
from fhir_server.access.permissions import Permissions
from fhir_server.allocator import FreeMemory
from fhir_server.audit import AuditLog
from fhir_server.bodies import BodyLimits, Receive, read_body
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.clock import Clock
from fhir_server.content_codings import Gzip, accepts_gzip
from fhir_server.errors import Problem
from fhir_server.interactions import async_requests, batch
from fhir_server.interactions.accept import format_of_errors, require_acceptable
from fhir_server.interactions.formats import Formats, is_xml
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response, header_fields, parse_query
from fhir_server.interactions.patch import ACCEPT_PATCH
from fhir_server.interactions.public_documents import Document
from fhir_server.interactions.registry import BUNDLE
from fhir_server.interactions.routing import Route, match_route, may_be_answered_later, methods, unsupported
from fhir_server.interactions.service import Service
from fhir_server.memory import WorkingMemory
from fhir_server.request_ids import request_id
from fhir_server.resources import catalog, definitions
from fhir_server.search.custom_parameters import NONE, in_use
from fhir_server.sending import Send, send_response
from fhir_server.smart.accounts.session_use import AppUse
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.tokens import dpop
from fhir_server.smart.tokens.dpop import ProofError, ProvenRequest
from fhir_server.turns import KnownClients, Line, Turns

T = TypeVar("T")
Scope = MutableMapping[str, Any]

_log = logging.getLogger("fhir_server")
_COMMON: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization, Origin, Accept, Accept-Encoding, Prefer"),
    (b"x-content-type-options", b"nosniff"),
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"ETag, Location, Last-Modified, Content-Location, Accept-Patch, Expires, Retry-After, X-Progress, DPoP-Nonce, WWW-Authenticate, "
        b"Preference-Applied, Allow, Accept-Encoding, Accept-Ranges, Content-Range, Content-Disposition, X-Security-Context, X-Request-Id",
    ),
)
_PREFLIGHT = (
    *_COMMON,
    (b"accept-encoding", b"gzip"),
    (
        b"access-control-allow-headers",
        b"Authorization, DPoP, Content-Type, Content-Encoding, Accept, Prefer, If-Match, If-None-Match, If-None-Exist, "
        b"If-Modified-Since, If-Unmodified-Since, Range, If-Range, X-Provenance, X-Security-Context, X-Request-Id",
    ),
    (b"access-control-max-age", b"86400"),
)
_OF_DOCUMENT = "GET, HEAD, OPTIONS"
# A page's script may send them to a URL that does not exist, too: it gets to know the answer.
_TO_NO_ROUTE = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
# additional headers of error responses, by status
_ERROR_HEADERS = {401: ((b"www-authenticate", b'Bearer realm="fhir"'),), 429: ((b"retry-after", b"60"),)}


class RequestLimits(NamedTuple):
    """The largest bodies of requests, what each request may spend, how many of one client are served at a time, and the bytes that all
    work on together.
    """

    bodies: BodyLimits
    budget: BudgetLimits
    client_requests: int = 16
    memory: int = 192 * 1024 * 1024


class FhirApi:
    """ASGI application to mount at the FHIR base.

    ``limits``     the limits of requests
    ``documents``  responses that need no access token (metadata, discovery), by path
    ``smart``      verifies proofs of possession; None: no token that is bound to a key is taken
    ``padding_key``  the secret by which compressed answers are lengthened
    """

    def __init__(
        self,
        service: Service,
        clock: Clock,
        audit_log: AuditLog,
        limits: RequestLimits,
        documents: dict[tuple[str, ...], Document],
        smart: SmartContext | None = None,
        *,
        padding_key: bytes = b"",
    ) -> None:
        self._service = service
        self._clock = clock
        self._audit_log = audit_log
        self._limits = limits
        self._documents = documents
        self._custom = NONE
        self._smart = smart
        self._formats = Formats(service.parser)
        self._memory = WorkingMemory(limits.memory)
        self._free_memory = FreeMemory()
        self._gzip = Gzip(padding_key)
        self._turns = Turns(limits.client_requests, self._memory)
        self._clients = KnownClients()
        self._use = AppUse(service.store)

    async def prepare(self) -> None:
        """Build the documents and the tables of all types, so that the first request for one does not wait."""
        for type in catalog():
            definitions.search_parameters(type)
        for path, document in self._documents.items():
            await document(Request("GET", path, (), {}, b"", self._clock()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = header_fields(scope["headers"]), _segments(scope)
        line = self._turns.line(self._clients.get(headers.get("authorization", "")) or (scope.get("client") or ("",))[0])
        spending = Budget(self._limits.budget, line.go_on, held=line.held)
        try:
            if scope["method"] == "OPTIONS":
                response = self._options(path)
            else:
                request = Request(scope["method"], path, (), headers, b"", self._clock(), _address(scope), request_id.get())
                response = await self._respond(request, scope, receive, line, spending)
            accepted = headers.get("accept-encoding", "")
            gzip = self._gzip if accepted and accepts_gzip(accepted) else None
            is_document = path in self._documents and scope["method"] != "OPTIONS"
            await send_response(response, send, line, is_head=scope["method"] == "HEAD", gzip=gzip, is_document=is_document)
        finally:
            size = spending.size
            spending.release()
            self._free_memory.after(size)

    async def ask(self, request: Request) -> Response:
        """Answer what a page of this server asks for a person (``request.caller``), as an app is answered: in turns, on a budget, and not
        without a line in the audit log.  The body is whole; a Problem is its OperationOutcome.
        """
        assert request.caller is not None
        line = self._turns.line(request.caller.username or request.caller.client_id)
        spending = Budget(self._limits.budget, line.go_on, held=line.held)
        audit = AuditContext(store_lines=self._audit_log.flush)
        try:
            if not self._memory.may_begin(line.held):
                await self._memory.begin(line.held)
            audit.with_write = self._audit_log.with_write(request, audit)
            response = await self._in_turn(self._handle_own(request, audit), line, spending)
        except Problem as problem:
            response = Response(problem.status, problem.outcome())
            problem.let_go()
        except Exception:
            _log.exception("A page's request failed.")
            response = Response(500, Problem("fault", "The server failed to answer; the failure has been logged.").outcome())
        finally:
            spending.release()
        response = await self._record(request, audit, response, line)
        return Response(response.status, b"".join((response.body, *response.parts)), response.headers)

    async def _respond(self, request: Request, scope: Scope, receive: Receive, line: Line, spending: Budget) -> Response:
        """Handle a request, of which the head is known, and record it.  Errors become OperationOutcomes."""
        audit = AuditContext(store_lines=self._audit_log.flush)
        try:
            if not self._memory.may_begin(line.held):
                await self._memory.begin(line.held)
                request.now = self._clock()
            audit.with_write = self._audit_log.with_write(request, audit)
            work = self._handle(request, scope, receive, audit)
            response = await self._in_turn(work, line, spending)
            if response.stream is not None:
                response.stream = self._in_turns(response.stream, line)
            headers = _with_common(response.headers)
        except Problem as problem:
            response = await self._error(problem, request, scope)
            headers = response.headers
            problem.let_go()
        except Exception:
            _log.exception("A request failed.")
            fault = Problem("fault", "The server failed to answer; the failure has been logged.")
            response = Response(500, fault.outcome(), _error_headers(fault))
            headers = response.headers
        if audit.permissions is not None:
            self._clients.put(request.headers.get("authorization", ""), _client_of(audit.permissions))
            if session := audit.permissions.principal.session:
                await self._use.note(session, self._clock())
        answer = Response(response.status, response.body, headers, response.stream, response.parts)
        return await self._record(request, audit, answer, line)

    async def _error(self, problem: Problem, request: Request, scope: Scope | None = None) -> Response:
        """The OperationOutcome of a problem, in the format that the client prefers."""
        response = Response(problem.status, problem.outcome(), _error_headers(problem))
        if not request.query and scope is not None:  # refused before it was read
            with suppress(Problem):
                request.query = parse_query(scope["query_string"])
        try:
            return await self._formats.answer(request, response, format_of_errors(request))
        except Problem:
            return response

    async def _record(self, request: Request, audit: AuditContext, response: Response, line: Line) -> Response:
        """Record the request, unless its line was stored with its write.  Returns 503 in place of a response that cannot be recorded.

        Of a response that is sent in parts, each part is recorded too before it is sent.
        """
        if audit.recorded is not None:
            self._audit_log.append_recorded(audit.recorded)
            if audit.recorded.status == response.status:
                return response
        try:
            recording = self._audit_log.record_request(request, audit, response.status)
            # The line of a large Bundle is built in turns, too; it has no budget, because there is no answer without it.
            await (budget.metered(recording, Budget(BudgetLimits(), line.go_on)) if audit.entries else recording)
        except Problem as problem:
            return await self._error(problem, request)
        if response.stream is not None:
            audit.shown.clear()
            response.stream = self._recorded_parts(request, audit, response.status, response.stream)
        return response

    async def _recorded_parts(
        self, request: Request, audit: AuditContext, status: int, parts: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        async for part in parts:
            if audit.shown:
                await self._audit_log.record_request(request, audit, status)
                audit.shown.clear()
            yield part

    async def _in_turn(self, work: Coroutine[Any, Any, T], line: Line, spending: Budget) -> T:
        """Do work on a budget, in the client's turns."""
        if not self._turns.may_begin(line):
            try:
                await self._turns.begin(line)
            except BaseException:
                work.close()
                raise
        try:
            return await budget.metered(work, spending)
        finally:
            self._turns.end(line, spending.spent)

    async def _in_turns(self, stream: AsyncIterator[bytes], line: Line) -> AsyncIterator[bytes]:
        """A stream of which each part is work of its own."""

        async def part() -> bytes:
            return await anext(stream, b"")

        while True:
            spending = Budget(self._limits.budget, line.go_on, held=line.held)
            try:
                if not (text := await self._in_turn(part(), line, spending)):
                    return
                yield text
            finally:
                spending.release()

    def _options(self, path: tuple[str, ...]) -> Response:
        """What a path takes (RFC 9110 9.3.7; the CORS protocol's preflight).  It depends on nothing but the path."""
        taken = _OF_DOCUMENT if path in self._documents else methods(path)
        allowed = taken.encode() or _TO_NO_ROUTE
        patches = (ACCEPT_PATCH,) if b"PATCH" in allowed else ()
        own = ((b"allow", taken.encode() or b"OPTIONS"), (b"access-control-allow-methods", allowed))
        return Response(204, headers=(*_PREFLIGHT, *own, *patches))

    async def _handle(self, request: Request, scope: Scope, receive: Receive, audit: AuditContext) -> Response:
        document = self._documents.get(request.path)
        if document is not None and request.method not in ("GET", "HEAD"):
            raise unsupported(request, _OF_DOCUMENT)
        if "dpop" in request.headers and document is None:
            request.proven = await self._proven(request, _sent_path(scope))
        is_bundle = not request.path and request.method not in ("GET", "HEAD")
        route = BUNDLE if is_bundle or document is not None else match_route(request)
        try:
            request.query = parse_query(scope["query_string"])
        except Problem:
            if document is None:
                await self._service.authenticate(request, audit)
            raise
        if document is not None:
            with suppress(Problem):  # documents are also given out while the store cannot be reached
                self._custom = await self._service.custom_parameters()
            with in_use(self._custom):
                found = await document(request)
            return found if found.status == 304 else await self._formats.document(request, found, format_of_errors(request))
        media = require_acceptable(request, route.media)
        if route.method != ("GET" if request.method == "HEAD" else request.method):
            raise unsupported(request)
        if route.body:
            await self._admit(request, route, receive, audit)
        if request.prefers_async and _may_be_answered_later(request, route):
            accepted = await async_requests.kick_off(request, self._service, audit)
            if accepted is not None:
                return await self._formats.answer(request, accepted, media)
        return await self._formats.answer(request, await route.handle(request, self._service, audit), media)

    async def _handle_own(self, request: Request, audit: AuditContext) -> Response:
        return await match_route(request).handle(request, self._service, audit)

    async def _proven(self, request: Request, sent_path: str) -> str:
        """The key that the request's proof was signed with (RFC 9449 7); "" for a request that uses no token with it.

        Once for each request: the entries of a Bundle are part of the request that was proven.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self._smart is None or scheme.lower() != "dpop":
            return ""
        try:
            return await dpop.prove_token(self._smart, request.headers["dpop"], ProvenRequest(request.method, sent_path, token))
        except ProofError as error:
            challenge = f'DPoP realm="fhir", error="{error.error}", algs="{" ".join(dpop.ALGORITHMS)}"'
            headers = ((b"www-authenticate", challenge.encode()), (b"dpop-nonce", dpop.nonce(self._smart).encode()))
            raise Problem("unauthenticated", str(error), headers=headers) from None

    async def _admit(self, request: Request, route: Route, receive: Receive, audit: AuditContext) -> None:
        """Decide from the head whether the caller may do this, and only then read the body."""
        permissions = await self._service.authenticate(request, audit)
        if route.admit is not None:
            route.admit(permissions, request.path[route.typed])
        if route.body == "resource":
            await self._service.require_writable()
        limit = self._limits.bodies.of(route.body)
        spending = budget.current()
        assert spending is not None
        request.body, was_complete = await read_body(receive, request.headers, limit, spending)
        if route.body != "form" and not route.is_raw and is_xml(request):
            was_complete &= await self._formats.take_xml(request)
        audit.just_admitted = was_complete
        if not was_complete:
            request.now = self._clock()


def _may_be_answered_later(request: Request, route: Route) -> bool:
    if route is BUNDLE:
        return batch.is_of_reads(request.body)
    return request.method != "HEAD" and may_be_answered_later(route)


def _with_common(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of a response, and those of all responses that it does not have itself."""
    for name, _ in headers:
        if name == _COMMON[0][0]:  # the only one that some responses have themselves
            return (*headers, *_COMMON[1:])
    return (*headers, *_COMMON)


def _error_headers(problem: Problem) -> tuple[tuple[bytes, bytes], ...]:
    own = problem.headers or _ERROR_HEADERS.get(problem.status, ())
    retry = ((b"retry-after", b"%d" % problem.retry_after),) if problem.status == 503 else ()
    return ((b"content-type", JSON), *_COMMON, *own, *retry)


def _segments(scope: Scope) -> tuple[str, ...]:
    """The path below the FHIR base."""
    path: str = scope["path"][len(scope.get("root_path", "")) :]
    return tuple([segment for segment in path.split("/") if segment])


def _sent_path(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1").partition("?")[0]


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _client_of(permissions: Permissions) -> str:
    """Who has turns, memory and budgets of its own: a person, or a client that acts for nobody."""
    return permissions.principal.username or permissions.principal.client_id
