"""The pages of linked accounts.  They belong to the person who is signed in: nobody else's links exist for her."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from fhir_server.linking import authorization, display, links, organizations
from fhir_server.linking.context import LinkError, LinkingContext, UnreachableError
from fhir_server.linking.links import Link
from fhir_server.linking.organizations import Organization
from fhir_server.linking.pages import render
from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.security_events import Kind, SecurityEvent
from fhir_server.web.dates import format_instant_date
from fhir_server.web.forms import NO_STORE, BadFormError, fields, read_form

Handler = Callable[[Request, Session], Awaitable[Response]]
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_UNKNOWN: Final = "There is no such linked account."
_UNLINKED: Final = "This account is not linked any more. You can link it again at any time."
_STAFF: Final = "Accounts at other health systems are linked from a patient's or a family member's own account, not from a work account."
_LAPSED: Final = "You were signed out here in the meantime, so nothing was linked. Sign in and start again."


class LinkPages:
    """The pages of one :class:`LinkingContext`."""

    def __init__(self, context: LinkingContext) -> None:
        self.context = context

    async def listing(self, request: Request, session: Session) -> Response:
        return await self._listing(session, done=_UNLINKED if "unlinked" in request.query_params else "")

    async def start(self, request: Request, session: Session) -> Response:
        form = await self._form(request)
        if form is None:
            return self._problem(session, _FORGED, 403)
        try:
            organization, url = await authorization.start(self.context, session.user, form.get("organization", ""))
        except LinkError as problem:
            return await self._listing(session, str(problem), _status(problem))
        # A page with a link, not a redirect: browsers hold a form to its own site, redirects included.
        return self._page("leaving.html", session, partner=organization, url=url, host=authorization.host(url))

    async def callback(self, request: Request, session: Session) -> Response:
        try:
            link = await authorization.finish(self.context, session.user, fields(request.url.query))
        except BadFormError as error:
            return await self._listing(session, str(error))
        except LinkError as problem:
            return await self._listing(session, str(problem), _status(problem))
        await self._note("link-account", session, link)
        return _to(f"/links/{link.id}")

    async def link(self, request: Request, session: Session) -> Response:
        link, organization = await self._found(request, session)
        if link is None or organization is None:
            return self._problem(session, _UNKNOWN, 404)
        problem, sections = "", list[display.Section]()
        try:
            sections = await display.sections(self.context, session.user, link)
        except LinkError as failure:
            problem = str(failure)
        view: dict[str, Any] = {"link": link, "partner": organization, "sections": sections, "since": self._since(link)}
        return self._page("link.html", session, problem=problem, **view)

    async def unlink(self, request: Request, session: Session) -> Response:
        if await self._form(request) is None:
            return self._problem(session, _FORGED, 403)
        link, _ = await self._found(request, session)
        if link is None:
            return await self._listing(session, _UNLINKED, 404)
        await links.unlink(self.context, session.user, link)
        await self._note("unlink-account", session, link)
        return _to("/links?unlinked=yes")

    async def back(self, request: Request, session: Session) -> Response:
        """For the address of a form that a browser opens again by itself."""
        return _to("/links")

    # parts

    async def session(self, request: Request) -> Session | None:
        return await sessions.current(self.context.smart, self._cookie(request))

    def signed_in(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A handler for people who are signed in; others are asked to, and come back to their links."""

        async def guarded(request: Request) -> Response:
            session = await self.session(request)
            if session is None and request.url.path == "/links/callback":
                return self._problem(None, _LAPSED, 403)
            if session is None:
                interrupted = request.method == "POST" and self._cookie(request)
                return _to("/sign-in?next=/links" + ("&lapsed=yes" if interrupted else ""))
            return await handler(request, session) if session.user.role == "patient" else self._problem(session, _STAFF, 403)

        return guarded

    async def _found(self, request: Request, session: Session) -> tuple[Link | None, Organization | None]:
        link = await links.find(self.context, session.user, request.path_params["id"])
        return link, await organizations.find(self.context.smart.store, link.organization) if link else None

    async def _listing(self, session: Session, problem: str = "", status: int = 400, done: str = "") -> Response:
        known = {one.id: one for one in await organizations.list_all(self.context.smart.store)}
        kept = await links.list_all(self.context, session.user)
        linked = [(link, known[link.organization], self._since(link)) for link in kept if link.organization in known]
        offered = sorted(known.values(), key=lambda one: one.name.casefold())
        view: dict[str, Any] = {"problem": problem, "done": done, "linked": linked, "offered": offered}
        return self._page("links.html", session, status if problem else 200, **view)

    def _since(self, link: Link) -> str:
        return format_instant_date(link.since, self.context.smart.zone)

    async def _note(self, kind: Kind, session: Session, link: Link) -> None:
        await self.context.smart.record(SecurityEvent(kind, username=session.user.username, detail={"organisation": link.organization}))

    async def _form(self, request: Request) -> dict[str, str] | None:
        """The form's fields, if this browser was shown the form."""
        try:
            form = dict(await read_form(request))
        except BadFormError:
            return None
        return form if cookies.is_own_form(self.context.smart, request, form.get("token", "")) else None

    def _problem(self, session: Session | None, text: str, status: int) -> Response:
        return self._page("problem.html", session, status, text=text)

    def _page(self, name: str, session: Session | None, status: int = 200, **view: Any) -> Response:
        return render(self.context.smart, name, status, session=session, **view)

    def _cookie(self, request: Request) -> str:
        return request.cookies.get(sessions.cookie_name(self.context.smart), "")


def _status(problem: LinkError) -> int:
    """Whose fault it is: 503 where the other system is, or does, nothing that can be used."""
    return 503 if isinstance(problem, UnreachableError) else 400


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303, headers=NO_STORE | {"Referrer-Policy": "no-referrer"})


def router(smart: SmartContext, transport: httpx.AsyncBaseTransport | None = None) -> APIRouter:
    """The pages under ``/links``.  ``transport`` carries the calls to other systems; None: the network."""
    routes, pages = APIRouter(include_in_schema=False), LinkPages(LinkingContext(smart, transport))
    steps: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/links", pages.listing),
        ("POST", "/links", pages.start),
        ("GET", "/links/callback", pages.callback),
        ("GET", "/links/{id}", pages.link),
        ("POST", "/links/{id}/unlink", pages.unlink),
        ("GET", "/links/{id}/unlink", pages.back),
    )
    for method, path, handler in steps:
        routes.add_api_route(path, pages.signed_in(handler), methods=[method])
    return routes
