"""Search by GET and by POST (http://hl7.org/fhir/R4/search.html): of a type, of the server, and of a compartment.

Matches, totals and included resources all come from the caller's View.  A page link contains a position and the total that
stands beside it, encrypted and bound to the caller and the query.  The next page searches the View again, but does not count again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from fhir_server import budget
from fhir_server.access.audit_trail import TYPE as AUDIT_EVENT
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisiblePage, VisibleVersion
from fhir_server.errors import Issue
from fhir_server.interactions import bundle_json, preconditions
from fhir_server.interactions.audit_search import AuditSearch
from fhir_server.interactions.included import MAX_INCLUDED, included
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.interactions.subscription_records import TYPE as SUBSCRIPTION
from fhir_server.interactions.subscription_search import SubscriptionSearch
from fhir_server.interactions.subset import subset
from fhir_server.interactions.type_pages import read_page
from fhir_server.search import query as queries
from fhir_server.search.cursors import PageLink
from fhir_server.search.query import Query
from fhir_server.search.rows import Position

Pair = tuple[str, str]


async def search(view: View, request: Request, service: Service) -> Response:
    """``GET Type?...``, ``GET Type/_search?...`` or ``POST Type/_search``: a searchset Bundle.

    Raises Problem ``forbidden`` or ``invalid``.
    """
    type = request.path[0]
    admit(view.permissions, type)
    return await respond(view, request, service, type, parse((type,), parameters(request), request, service))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to search this type.  Raises Problem ``forbidden``."""
    permissions.require(type, "s")


def parameters(request: Request) -> Sequence[Pair]:
    """The parameters of a search, in the URL and in the body."""
    return (*request.query, *request.form()) if request.method == "POST" else request.query


def parse(types: Sequence[str], pairs: Sequence[Pair], request: Request, service: Service) -> Query:
    """Parse search parameters, strictly or leniently as the Prefer header says.  Raises Problem ``invalid``."""
    return queries.parse(types, pairs, strict=service.is_strict(request), now=request.now, base=service.base)


async def respond(view: View, request: Request, service: Service, path: str, query: Query) -> Response:
    """The searchset Bundle of a search at this path.  Raises Problem ``invalid`` or ``forbidden``."""
    preconditions.require_only(request)
    parts = await page(view, path, query, service)
    return Response(200, headers=((b"content-type", JSON), *service.applied_preference(request)), parts=parts)


async def page(view: View, path: str, query: Query, service: Service) -> list[bytes]:
    """The searchset Bundle of one page, as JSON text in parts."""
    itself = bundle_json.query_url(service.base, path, query.applied)
    links = [("self", itself)]
    if query.summary == "count" or query.count == 0:
        return bundle_json.searchset(_notes(query), links=links, total=await _count(view, query, service))
    links.append(("first", itself))  # the position of a page is no part of it
    bound = binding(view, service, path, query.applied)
    after = service.cursors.link(query.cursor, bound) if query.cursor else None
    matches, end, total = await _find(view, query, service, after)
    if after is None and end is None:
        total = len(matches)
    elif after is not None and total is None and not _counts_each_page(query):
        total = after.total
    total = await _total(view, query, service, total)
    kept = None if _counts_each_page(query) else total
    if after is not None and (previous := after.previous(kept)) is not None:
        links.append(("previous", next_link(service, path, query.applied, previous, bound)))
    elif after is not None and after.is_second:
        links.append(("previous", itself))
    if end is not None:
        following = after.next(end, kept) if after is not None else PageLink.second(end, kept)
        links.append(("next", next_link(service, path, query.applied, following, bound)))
    return bundle_json.searchset(await searchset_entries(view, query, matches, service), links=links, total=total)


async def searchset_entries(view: View, query: Query, matches: Sequence[VisibleVersion], service: Service) -> list[bundle_json.Entry]:
    """The entries of a page: matches, what they include, and notes about the search."""
    entries = await budget.each(lambda version: bundle_json.entry(version, service.base, body=subset(version.body, query)), matches)
    added, is_cut = await included(view, query, matches, service.base)
    entries += await budget.each(lambda version: bundle_json.entry(version, service.base, "include", subset(version.body, query)), added)
    cut = [bundle_json.note(Issue("too-costly", _CUT, severity="warning"))] if is_cut else []
    return [*entries, *_notes(query), *cut]


_CUT = f"More than {MAX_INCLUDED} resources would be included in this page; the others were left out. Ask for a smaller _count."


def _notes(query: Query) -> list[bundle_json.Entry]:
    """The entry that names the parameters that have no effect."""
    if not query.ignored:
        return []
    issues = [
        Issue("not-supported", f"The parameter {name!r} is not known and has no effect.", severity="warning") for name in query.ignored
    ]
    return [bundle_json.note(*issues)]


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


def _source(view: View, type: str, service: Service) -> View | AuditSearch | SubscriptionSearch:
    """Where matches of this type come from: the View, and for AuditEvents also the audit log, if the caller may see any of it."""
    if type == SUBSCRIPTION:
        return SubscriptionSearch(view)
    trail = service.audit_trail
    return AuditSearch(view, trail, service.base) if type == AUDIT_EVENT and trail.covers(view.permissions) else view


async def _find(view: View, query: Query, service: Service, after: Position | None) -> VisiblePage:
    types = [*query.conditions]
    if len(types) == 1:
        source = _source(view, types[0], service)
        return await source.find(types[0], query.where, sort=query.sort, limit=query.count, after=after)

    async def find(type: str, limit: int, after: Position | None) -> VisiblePage:
        return await _source(view, type, service).find(type, query.conditions[type], limit=limit, after=after)

    return VisiblePage(*await read_page(types, query.count, after, find))


async def _count(view: View, query: Query, service: Service) -> int:
    return sum([await _source(view, type, service).count(type, where) for type, where in query.conditions.items()])


async def _total(view: View, query: Query, service: Service, known: int | None) -> int | None:
    """The exact number of visible matches, or None to omit it.

    Returns ``known`` if it is a number.  Otherwise counts only if the caller sent _total, or sees few patients and searches one type,
    which is inexpensive.
    """
    if query.total == "none":
        return None
    if known is not None:
        return known
    one = next(iter(query.conditions)) if len(query.conditions) == 1 else None
    inexpensive = one is not None and view.permissions.patients is not None and _source(view, one, service) is view
    wanted = _names_total(query) or inexpensive
    return await _count(view, query, service) if wanted else None


def _names_total(query: Query) -> bool:
    return any(name in ("_total", "_totalMethod") for name, _ in query.applied)


def _counts_each_page(query: Query) -> bool:
    """Whether the client asked for the exact number.  Otherwise later pages repeat the total of the first one."""
    return query.total == "accurate" and _names_total(query)
