"""Pages of linked accounts. A person sees only their own links."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.linking import authorization, display, links, organizations, persons
from fhir_server.linking.context import NOT_YET, LinkError, LinkingContext, UnreachableError
from fhir_server.linking.display import LinkedRecord
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.pages import render
from fhir_server.linking.persons import RecordPerson
from fhir_server.linking.queries import SECTIONS
from fhir_server.smart.accounts import cookies, page_sessions, sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import SecurityEvent, SecurityEventKind
from fhir_server.web.dates import format_instant_date
from fhir_server.web.forms import NO_STORE, BadFormError, fields, read_form

_LONG: Final = 8  # organizations from which the list has a search
_OFFERED: Final = 50  # organizations on a page
_MAX_SEARCH: Final = 100  # characters
Handler = Callable[[Request, Session], Awaitable[Response]]
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_UNKNOWN: Final = "There is no such linked account."
_UNLINKED: Final = "This account is no longer linked. You can link it again at any time."
_STAFF: Final = "You cannot link accounts from a work account. Sign in with your personal account."
_SIGNED_OUT: Final = "You were signed out in the meantime. The account was not linked. Sign in and start again."


class LinkPages:
    """Handlers of the pages under ``/links``."""

    def __init__(self, context: LinkingContext) -> None:
        self.context = context

    async def show_list(self, request: Request, session: Session) -> Response:
        done = _UNLINKED if "unlinked" in request.query_params else ""
        return await self._list_page(session, done=done, find=request.query_params.get("find", "")[:_MAX_SEARCH])

    async def start(self, request: Request, session: Session) -> Response:
        form = await self._read_form(request)
        if form is None:
            return self._problem_page(session, _FORGED, 403)
        try:
            organization, url = await authorization.start(self.context, session.user, form.get("organization", ""))
        except LinkError as problem:
            return await self._list_page(session, str(problem), _status(problem))
        # A page with a link instead of a redirect: the form-action directive also applies to redirects after a form.
        return self._page("leaving.html", session, partner=organization, url=url, host=authorization.host_of(url))

    async def callback(self, request: Request, session: Session) -> Response:
        try:
            callback = request.path_params.get("organization", "")
            link = await authorization.finish(self.context, session.user, fields(request.url.query), callback)
        except BadFormError as error:
            return await self._list_page(session, str(error))
        except LinkError as problem:
            return await self._list_page(session, str(problem), _status(problem))
        await self._record("link-account", session, link)
        return _redirect_to(f"/links/{link.id}")

    async def show_link(self, request: Request, session: Session) -> Response:
        link, organization = await self._find(request, session)
        if link is None or organization is None:
            return self._problem_page(session, _UNKNOWN, 404)
        waits = request.query_params.getlist("wait")
        chosen = tuple(section for section in SECTIONS if section.slug in waits)
        problem, record = "", LinkedRecord()
        try:
            record = await display.load_record(self.context, session.user, link, organization, chosen)
        except LinkError as failure:
            problem = str(failure)
        person = await links.find_person(self.context, link)
        view: dict[str, Any] = {
            "link": link,
            "partner": organization,
            "record": record,
            "chosen": chosen,
            "wait": urlencode([("wait", section.slug) for section in record.late]),
            "seconds": round(self.context.view_seconds),
            "person": person,
            "not_told": persons.NOT_TOLD if record.person is None and not problem and record.problem != NOT_YET else "",
            "mismatch": await self._mismatch(session, person) if person else "",
            "since": self._since(link),
        }
        return self._page("link.html", session, problem=problem or record.problem, **view)

    async def unlink(self, request: Request, session: Session) -> Response:
        if await self._read_form(request) is None:
            return self._problem_page(session, _FORGED, 403)
        link, _ = await self._find(request, session)
        if link is None:
            return await self._list_page(session, _UNLINKED, 404)
        await links.unlink(self.context, session.user, link)
        await self._record("unlink-account", session, link)
        return _redirect_to("/links?unlinked=yes")

    async def redirect(self, request: Request, session: Session) -> Response:
        """Redirect to the list: for GET on the URL of a form, which a browser sends when it restores a tab."""
        return _redirect_to("/links")

    # parts

    async def session(self, request: Request) -> Session | None:
        return await page_sessions.current(self.context.smart, self._cookie(request))

    def signed_in(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Call ``handler`` with the current session; without one, redirect to sign-in, which leads back to the list."""

        async def guarded(request: Request) -> Response:
            session = await self.session(request)
            if session is None and request.url.path.startswith("/links/callback"):
                return self._problem_page(None, _SIGNED_OUT, 403)
            if session is None:
                interrupted = request.method == "POST" and self._cookie(request)
                return _redirect_to("/sign-in?next=/links" + ("&lapsed=yes" if interrupted else ""))
            return await handler(request, session) if session.user.role == "patient" else self._problem_page(session, _STAFF, 403)

        return guarded

    async def _find(self, request: Request, session: Session) -> tuple[Link | None, Organization | None]:
        link = await links.find(self.context, session.user, request.path_params["id"])
        return link, await organizations.find(self.context.smart.store, link.organization) if link else None

    async def _mismatch(self, session: Session, person: RecordPerson) -> str:
        """Say how a person differs from the account's own record; "" if they are the same."""
        user = session.user
        return persons.compare(person, await self.context.smart.records(user.person(), self.context.smart.now()), user.patient)

    async def _list_page(self, session: Session, problem: str = "", status: int = 400, done: str = "", find: str = "") -> Response:
        known = {organization.id: organization for organization in await organizations.list_all(self.context.smart.store)}
        own_links = [link for link in await links.list_all(self.context, session.user) if link.organization in known]
        linked = [(link, known[link.organization], await links.find_person(self.context, link), self._since(link)) for link in own_links]
        found = organizations.search(tuple(known.values()), find)
        view: dict[str, Any] = {
            "problem": problem,
            "done": done,
            "linked": linked,
            "offered": found[:_OFFERED],
            "left_out": len(found) > _OFFERED,
            "find": find,
            "is_long": len(known) > _LONG,
        }
        return self._page("links.html", session, status if problem else 200, **view)

    def _since(self, link: Link) -> str:
        return format_instant_date(link.since, self.context.smart.zone)

    async def _record(self, kind: SecurityEventKind, session: Session, link: Link) -> None:
        await self.context.smart.record(SecurityEvent(kind, username=session.user.username, detail={"organisation": link.organization}))

    async def _read_form(self, request: Request) -> dict[str, str] | None:
        """Return the fields of the form; None if it lacks this browser's form token."""
        try:
            form = dict(await read_form(request))
        except BadFormError:
            return None
        return form if cookies.is_own_form(self.context.smart, request, form.get("token", "")) else None

    def _problem_page(self, session: Session | None, text: str, status: int) -> Response:
        return self._page("problem.html", session, status, text=text)

    def _page(self, name: str, session: Session | None, status: int = 200, **view: Any) -> Response:
        return render(self.context.smart, name, status, session=session, **view)

    def _cookie(self, request: Request) -> str:
        return request.cookies.get(sessions.cookie_name(self.context.smart), "")


def _status(problem: LinkError) -> int:
    """Return 503 if the other system sent no usable response, else 400."""
    return 503 if isinstance(problem, UnreachableError) else 400


def _redirect_to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303, headers=NO_STORE | {"Referrer-Policy": "no-referrer"})


def router(smart: SmartContext, transport: httpx.AsyncBaseTransport | None = None) -> APIRouter:
    """Build the routes under ``/links``. ``transport`` sends the requests to other systems; None: the network."""
    return build(LinkingContext(smart, transport))


def build(context: LinkingContext) -> APIRouter:
    """Build the routes with these components."""
    routes, pages = APIRouter(include_in_schema=False), LinkPages(context)
    handlers: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/links", pages.show_list),
        ("POST", "/links", pages.start),
        ("GET", "/links/callback", pages.callback),
        ("GET", "/links/callback/{organization}", pages.callback),
        ("GET", "/links/{id}", pages.show_link),
        ("POST", "/links/{id}/unlink", pages.unlink),
        ("GET", "/links/{id}/unlink", pages.redirect),
    )
    for method, path, handler in handlers:
        routes.add_api_route(path, pages.signed_in(handler), methods=[method])
    return routes
