"""Search by GET and by POST (http://hl7.org/fhir/R4/search.html).

Matches, totals and included resources all come from the caller's View.  A page link contains only an encrypted position,
bound to the caller and the query.  The next page searches the View again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from fhir_server import budget, jsontext
from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, VisibleVersion
from fhir_server.interactions import bundle_json
from fhir_server.interactions.audit_search import AuditSearch
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import subset
from fhir_server.resources.references import LiteralReference, parse_reference
from fhir_server.resources.server_base import server_base
from fhir_server.search import index
from fhir_server.search import query as queries
from fhir_server.search.criteria import refers
from fhir_server.search.filters import IdIs
from fhir_server.search.query import Query
from fhir_server.search.result_parameters import Include
from fhir_server.search.rows import Position

MAX_INCLUDED = 1000
"""Largest number of resources that _include and _revinclude add to one page."""


async def search(view: View, request: Request, service: Service) -> Response:
    """``GET Type?...`` or ``POST Type/_search``: a searchset Bundle.  Raises Problem ``forbidden`` or ``invalid``."""
    type = request.path[0]
    pairs = request.query if request.method == "GET" or request.method == "HEAD" else (*request.query, *request.form())
    admit(view.permissions, type)
    query = parse(type, pairs, request, service)
    body = await page(view, type, query, service)
    return Response(200, body, ((b"content-type", JSON),))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to search this type.  Raises Problem ``forbidden``."""
    permissions.require(type, "s")


def parse(type: str, pairs: Sequence[tuple[str, str]], request: Request, service: Service) -> Query:
    """Parse search parameters, strictly or leniently as the Prefer header says.  Raises Problem ``invalid``."""
    strict = request.preference("handling", "lenient") == "strict"
    return queries.parse(type, list(pairs), strict=strict, now=request.now, base=service.base)


async def page(view: View, type: str, query: Query, service: Service) -> bytes:
    """The searchset Bundle of one page, as JSON text."""
    source = _source(view, type, service)
    links = [("self", bundle_json.query_url(service.base, type, query.applied))]
    if query.summary == "count" or query.count == 0:
        return bundle_json.searchset((), links=links, total=await source.count(type, query.where))
    bound = binding(view, service, type, query.applied)
    after = service.cursors.decrypt(query.cursor, bound) if query.cursor else None
    matches, end, total = await source.find(type, query.where, sort=query.sort, limit=query.count, after=after)
    if end is not None:
        links.append(("next", next_link(service, type, query.applied, end, bound)))
    if after is None and end is None:
        total = len(matches)
    total = await _total(view, source, type, query, total)
    entries = await budget.each(lambda version: bundle_json.entry(version, service.base, body=subset(version.body, query)), matches)
    included = await _included(view, query, matches, service)
    entries += await budget.each(lambda version: bundle_json.entry(version, service.base, "include", subset(version.body, query)), included)
    return bundle_json.searchset(entries, links=links, total=total)


def binding(view: View, service: Service, type: str, applied: Iterable[tuple[str, str]]) -> bytes:
    """A digest of what a page link is valid for: the caller, the caller's role, the policy and the query."""
    principal = view.permissions.principal
    parts = (
        principal.client_id, principal.username, principal.patient, principal.family, repr(view.permissions.actor), service.policy.version,
        type, repr([pair for pair in applied if pair[0] != "_page"]),
    )  # fmt: skip
    return sha256(repr(parts).encode()).digest()


def next_link(service: Service, path: str, applied: Iterable[tuple[str, str]], end: Position, bound: bytes) -> str:
    """The URL of the page that begins after ``end``."""
    pairs = [pair for pair in applied if pair[0] != "_page"]
    return bundle_json.query_url(service.base, path, [*pairs, ("_page", service.cursors.encrypt(end, bound))])


def _source(view: View, type: str, service: Service) -> View | AuditSearch:
    """Where matches of this type come from: the View, and for AuditEvents also the audit log, if the caller may see any of it."""
    trail = service.audit_trail
    return AuditSearch(view, trail, service.base) if type == AUDIT_EVENT and trail.covers(view.permissions) else view


async def _total(view: View, source: View | AuditSearch, type: str, query: Query, known: int | None) -> int | None:
    """The exact number of visible matches, or None to omit it.

    Returns ``known`` if it is a number.  Otherwise counts only if the caller sent _total, or sees few patients, which is
    inexpensive.
    """
    if query.total == "none":
        return None
    if known is not None:
        return known
    inexpensive = view.permissions.patients is not None and source is view
    wanted = any(name == "_total" for name, _ in query.applied) or inexpensive
    return await source.count(type, query.where) if wanted else None


async def _included(view: View, query: Query, matches: Sequence[VisibleVersion], service: Service) -> list[VisibleVersion]:
    """The visible resources that _include and _revinclude add to these matches."""
    names = {f"{version.type}/{version.id}" for version in matches}
    included: dict[str, VisibleVersion] = {}
    past: dict[str, VisibleVersion] = {}
    for include in query.includes:
        references = await _references(include, matches, service.base)
        wanted = {(one.type, one.id) for one in references if not one.version and f"{one.type}/{one.id}" not in names}
        for type in sorted({type for type, _ in wanted}):
            ids = frozenset(id for target_type, id in wanted if target_type == type)
            _add(included, await view.find_included(type, IdIs(ids), MAX_INCLUDED))
        for one in [reference for reference in references if reference.version][:MAX_INCLUDED]:
            version = await view.find_included_version(one.type, one.id, one.version)
            if version is not None:
                past[f"{one.type}/{one.id}/{one.version}"] = version
    for reverse in query.revincludes:
        targets = frozenset(name for name in names if reverse.target_type in (None, name.partition("/")[0]))
        if targets:
            _add(included, await view.find_included(reverse.type, refers(reverse.type, reverse.param, targets), MAX_INCLUDED))
    current = [version for name, version in included.items() if name not in names]
    shown = {f"{version.type}/{version.id}/{version.version}" for version in (*matches, *current)}
    return [*current, *(version for name, version in past.items() if name not in shown)][:MAX_INCLUDED]


def _add(included: dict[str, VisibleVersion], versions: Iterable[VisibleVersion]) -> None:
    for version in versions:
        included.setdefault(f"{version.type}/{version.id}", version)


async def _references(include: Include, matches: Sequence[VisibleVersion], base: str) -> list[LiteralReference]:
    """The references to this server, each once, in the visible bodies that the include's search parameter selects."""
    server = server_base(base)
    selected = await budget.each(
        lambda version: index.reference_texts(include.type, include.param, jsontext.parse(version.body), base),
        [version for version in matches if version.type == include.type],
    )
    texts = dict.fromkeys(text for found in selected for text in found)
    found = (parse_reference(text if (relative := server.relative(text)) is None else relative) for text in texts)
    return [one for one in found if one and one.kind == "relative" and include.target_type in (None, one.type)]
