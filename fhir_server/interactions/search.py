"""Search, by GET and by POST (http://hl7.org/fhir/R4/search.html).

Everything is asked of the View: matches, totals, includes.  A page link carries only where the page ended, sealed to
its caller and query; the next page asks the View afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from fhir_server import jsontext
from fhir_server.access.view import View, VisibleVersion
from fhir_server.interactions import bundle_json
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.interactions.subset import subset
from fhir_server.search import index, query
from fhir_server.search.criteria import refers
from fhir_server.search.filters import IdIs
from fhir_server.search.result_parameters import Include
from fhir_server.search.rows import Position
from fhir_server.writing.references import is_local

INCLUDED = 1000
"""Most resources one page brings along by _include and _revinclude; counted over what is in view."""


async def search(view: View, request: Request, service: Service) -> Response:
    """``GET Type?...`` or ``POST Type/_search``: a searchset Bundle."""
    type = request.path[0]
    pairs = request.query if request.method == "GET" or request.method == "HEAD" else (*request.query, *request.form())
    view.permissions.require(type, "s")
    asked = parse(type, pairs, request, service)
    body = await page(view, type, asked, service)
    return Response(200, body, ((b"content-type", JSON),))


def parse(type: str, pairs: Sequence[tuple[str, str]], request: Request, service: Service) -> query.Query:
    """The query these parameters ask, strict or lenient as the request prefers."""
    strict = request.preference("handling", "lenient") == "strict"
    return query.parse(type, list(pairs), strict=strict, now=request.now, base=service.base)


async def page(view: View, type: str, asked: query.Query, service: Service) -> bytes:
    """One page of an answer."""
    links = [("self", bundle_json.address(service.base, type, asked.applied))]
    if asked.summary == "count" or asked.count == 0:
        return bundle_json.searchset((), links=links, total=await view.count(type, asked.where))
    bound = binding(view, service, type, asked.applied)
    after = service.cursors.decrypt(asked.cursor, bound) if asked.cursor else None
    found, end, total = await view.find(type, asked.where, sort=asked.sort, limit=asked.count, after=after)
    if end is not None:
        links.append(("next", next_link(service, type, asked.applied, end, bound)))
    if after is None and end is None:
        total = len(found)
    total = await _total(view, type, asked, total)
    entries = [bundle_json.entry(seen, service.base, body=subset(seen.body, asked)) for seen in found]
    extras = await _included(view, asked, found, service)
    entries += [bundle_json.entry(seen, service.base, "include", subset(seen.body, asked)) for seen in extras]
    return bundle_json.searchset(entries, links=links, total=total)


def binding(view: View, service: Service, type: str, applied: Iterable[tuple[str, str]]) -> bytes:
    """What a page link is good for: this caller, in this hat, under this policy, for this query."""
    principal = view.permissions.principal
    parts = (
        principal.client_id, principal.username, principal.patient, principal.family, repr(view.permissions.actor), service.policy.version,
        type, repr([pair for pair in applied if pair[0] != "_page"]),
    )  # fmt: skip
    return sha256(repr(parts).encode()).digest()


def next_link(service: Service, path: str, applied: Iterable[tuple[str, str]], end: Position, bound: bytes) -> str:
    """The address of the page that starts behind ``end``."""
    kept = [pair for pair in applied if pair[0] != "_page"]
    return bundle_json.address(service.base, path, [*kept, ("_page", service.cursors.encrypt(end, bound))])


async def _total(view: View, type: str, asked: query.Query, known: int | None) -> int | None:
    """The exact number in view (``known``, if it is), where it was asked for or costs little: in one page, or within one record."""
    if asked.total == "none":
        return None
    if known is not None:
        return known
    wanted = any(name == "_total" for name, _ in asked.applied) or view.permissions.patients is not None
    return await view.count(type, asked.where) if wanted else None


async def _included(view: View, asked: query.Query, found: Sequence[VisibleVersion], service: Service) -> list[VisibleVersion]:
    names = {f"{seen.type}/{seen.id}" for seen in found}
    extras: dict[str, VisibleVersion] = {}
    for include in asked.includes:
        wanted = sorted(_targets(include, found, service.base) - names)
        for type in sorted({target.partition("/")[0] for target in wanted}):
            ids = frozenset(target.partition("/")[2] for target in wanted if target.startswith(type + "/"))
            _add(extras, await view.find_included(type, IdIs(ids), INCLUDED))
    for reverse in asked.revincludes:
        targets = frozenset(name for name in names if reverse.target_type in (None, name.partition("/")[0]))
        if targets:
            _add(extras, await view.find_included(reverse.type, refers(reverse.type, reverse.param, targets), INCLUDED))
    return [seen for name, seen in extras.items() if name not in names][:INCLUDED]


def _add(extras: dict[str, VisibleVersion], found: Iterable[VisibleVersion]) -> None:
    for seen in found:
        extras.setdefault(f"{seen.type}/{seen.id}", seen)


def _targets(include: Include, found: Sequence[VisibleVersion], base: str) -> set[str]:
    """What the bodies, as the caller sees them, refer to by one parameter."""
    bodies = (jsontext.parse(seen.body) for seen in found if seen.type == include.type)
    targets = {target for body in bodies for target in index.targets(include.type, include.param, body, base)}
    return {target for target in targets if is_local(target) and include.target_type in (None, target.partition("/")[0])}
