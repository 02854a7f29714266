"""Searches another system for the person's resources of one type, the newest first, and follows the pages to a stated end.

A system is asked to sort. Whether it did is checked: it must say so in its ``self`` link (R4 3.1.1.3.3), and the dates must agree.
If it did not, all pages are fetched within the bounds, because the newest entries may be on the last one. Pages are fetched from the
partner's own origin only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from urllib.parse import parse_qs, urljoin, urlsplit

from fhir_server.display import Row, build_row, is_withdrawn
from fhir_server.display.texts import first_text, objects
from fhir_server.linking import failures, http, scopes
from fhir_server.linking.context import LinkingContext, NotYetError, SlowError, UnreachableError, log_failure
from fhir_server.linking.failures import Failure
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.ownership import Owner, owner_of
from fhir_server.linking.queries import Query
from fhir_server.linking.scopes import Cover
from fhir_server.linking.token_endpoint import PartnerTokens
from fhir_server.smart.outbound.json_client import JsonResponse, as_text, is_callable_url, origin_of

PAGE: Final = 100  # resources of one type on a page
MAX_PAGES: Final = 10  # of one type
MAX_BYTES: Final = 8 * 1024 * 1024  # of all pages of one type
# A system may refuse the order, or what is to be included, although it could answer without: then it is asked again without
_REFUSED: Final = (400, 403, 422, 501)
# What is said if further pages do not come, by the kind of error; else the system broke off
_CUT_SHORT: Final = {SlowError: failures.STOPPED, NotYetError: failures.COMING}


@dataclass(slots=True)
class Found:
    """The outcome of a search.

    ``failure``  why there is no list; None if the other system answered with one
    ``notes``    sentences for the page: why entries are missing
    ``is_late``  whether there is more to come for who waits
    """

    query: Query
    rows: list[Row] = field(default_factory=list)
    failure: Failure | None = None
    notes: dict[str, None] = field(default_factory=dict)
    is_late: bool = False

    def note(self, text: str) -> None:
        self.notes[text.format(what=self.query.what)] = None


@dataclass(slots=True)
class Search:
    """The searches for one page.

    ``ends``   the time of the event loop at which they must be done
    ``waits``  whether the person waits for all of it; else what has not arrived then is still to come
    """

    context: LinkingContext
    organization: Organization
    link: Link
    tokens: PartnerTokens
    ends: float
    waits: bool

    async def find(self, query: Query) -> Found:
        """Fetch the person's resources of this query. Never raises LinkError: the result says what failed."""
        found, covered = Found(query), scopes.cover(self.tokens.scope, query)
        if covered is Cover.NONE:
            found.failure = Failure("not-granted")
            found.note(found.failure.of_list(query.what))
            return found
        if covered is Cover.PART:
            found.note(failures.PART)
        try:
            response = await self._first_page(query)
        except NotYetError as problem:
            found.is_late = True
            return self._failed(found, Failure.of(problem), problem.cause)
        except UnreachableError as problem:
            return self._failed(found, Failure.of(problem), problem.cause)
        if failure := failures.failure_of(response):
            return self._failed(found, failure, f"answered with status {response.status} ({failure.kind})")
        await self._read_pages(found, response)
        return found

    def _failed(self, found: Found, failure: Failure, cause: str) -> Found:
        found.failure = failure
        found.note(failure.of_list(found.query.what))
        log_failure(self.organization, f"search of {found.query.type}", cause)
        return found

    async def _first_page(self, query: Query) -> JsonResponse:
        url, required = f"{self.link.base}/{query.type}", {"patient": self.link.patient, "_count": str(PAGE)} | dict(query.filters)
        optional = {"_sort": query.sort} | ({"_include": query.include} if query.include else {})
        response = await self._get(url, required | optional)
        is_refused = response.status in _REFUSED and (response.status != 403 or query.include)
        return await self._get(url, required) if is_refused else response

    async def _get(self, url: str, query: dict[str, str] | None = None) -> JsonResponse:
        try:
            async with asyncio.timeout_at(self.ends):
                return await http.get(self.context, self.organization, url, query, self.tokens.access)
        except TimeoutError:
            if not self.waits:
                raise NotYetError from None
            raise SlowError("", "the time for one page of this server was over") from None

    async def _read_pages(self, found: Found, response: JsonResponse) -> None:
        pages, size, url = [response.body], response.size, f"{self.link.base}/{found.query.type}"
        seen = {url}
        while target := _link(pages[-1], "next"):
            if len(pages) == 1 and _is_sorted(response.body, found.query):
                found.note(failures.OLDER)
                break
            url = urljoin(url, target)
            if not is_callable_url(self.context.smart, url) or origin_of(url) != origin_of(self.link.base):
                found.note(failures.ELSEWHERE)
                break
            if len(pages) == MAX_PAGES or size > MAX_BYTES or url in seen:
                found.note(failures.STOPPED)
                break
            seen.add(url)
            following = await self._next_page(found, url)
            if following is None:
                break
            pages.append(following.body)
            size += following.size
        else:
            _check_total(found, pages)
        for page, included in _with_included(pages):
            self._add_rows(found, page, included)

    async def _next_page(self, found: Found, url: str) -> JsonResponse | None:
        """Fetch a further page; None, with a note, if it does not come."""
        try:
            response = await self._get(url)
        except UnreachableError as problem:
            found.note(_CUT_SHORT.get(type(problem), failures.BROKEN_OFF))
            found.is_late = isinstance(problem, NotYetError)
            log_failure(self.organization, f"next page of {found.query.type}", problem.cause)
            return None
        if response.status != 200 or response.body.get("resourceType") != "Bundle":
            found.note(failures.BROKEN_OFF)
            log_failure(self.organization, f"next page of {found.query.type}", f"answered with status {response.status}")
            return None
        return response

    def _add_rows(self, found: Found, page: dict[str, Any], included: dict[str, dict[str, Any]]) -> None:
        if _has_unreadable(page):
            found.note(failures.UNREADABLE)
        for entry in _entries(page):
            resource = entry.get("resource")
            if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
                found.note(failures.UNREADABLE)
            elif resource["resourceType"] == "OperationOutcome":
                if any(issue.get("severity") != "information" for issue in objects(resource.get("issue"))):
                    found.note(failures.WARNED)
            elif resource["resourceType"] == found.query.type and not _is_include(entry):
                self._add_row(found, resource, as_text(entry.get("fullUrl")), included)

    def _add_row(self, found: Found, resource: dict[str, Any], full_url: str, included: dict[str, dict[str, Any]]) -> None:
        owner = owner_of(resource, self.link.patient, self.link.base, full_url)
        if owner is not Owner.LINKED:
            found.note(failures.OTHER_PATIENT if owner is Owner.OTHER else failures.NO_PATIENT)
        elif is_withdrawn(resource):
            found.note(failures.WITHDRAWN)
        else:
            found.rows.append(build_row(resource, included))


def _entries(page: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(page.get("entry")) if isinstance(page.get("entry"), list) else []


def _has_unreadable(page: dict[str, Any]) -> bool:
    listed = page.get("entry", [])
    return not isinstance(listed, list) or any(not isinstance(item, dict) for item in listed)


def _is_include(entry: dict[str, Any]) -> bool:
    search = entry.get("search")
    return isinstance(search, dict) and search.get("mode") == "include"


def _with_included(pages: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, dict[str, Any]]]]:
    """Pair each page with its resources of other types, by ``Type/id``."""
    return [(page, {_identity(each): each for entry in _entries(page) for each in objects(entry.get("resource"))}) for page in pages]


def _identity(resource: dict[str, Any]) -> str:
    return f"{as_text(resource.get('resourceType'))}/{as_text(resource.get('id'))}"


def _link(page: dict[str, Any], relation: str) -> str:
    return next((as_text(each.get("url")) for each in objects(page.get("link")) if each.get("relation") == relation), "")


def _is_sorted(page: dict[str, Any], query: Query) -> bool:
    """Whether the system says that it sorted by ``_sort``, and the dates agree."""
    if parse_qs(urlsplit(_link(page, "self")).query).get("_sort") != [query.sort]:
        return False
    own = [each for entry in _entries(page) for each in objects(entry.get("resource")) if each.get("resourceType") == query.type]
    dates = [next(filter(None, (first_text(each, path) for path in query.dates)), "")[:10] for each in own]
    # Dates of different precision agree as far as both go.
    return all(first[: len(second)] >= second[: len(first)] for first, second in pairwise(dates)) and all(dates)


def _check_total(found: Found, pages: list[dict[str, Any]]) -> None:
    total = pages[0].get("total")
    matches = sum(not _is_include(entry) for page in pages for entry in _entries(page))
    if isinstance(total, int) and not isinstance(total, bool) and total > matches:
        found.note(failures.FEWER)
