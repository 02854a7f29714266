"""Pages and forms of this room, in the frame and under the headers of the sign-in pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.core.context import SmartContext
from fhir_server.web.forms import NO_STORE, SAME_ORIGIN_OPENER, BadFormError, Form, page_headers, read_form

ShowHandler = Callable[[Request, Session], Awaitable[Response]]
FormHandler = Callable[[Request, Session, dict[str, str]], Awaitable[Response]]
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_templates = Environment(
    loader=ChoiceLoader([PackageLoader("fhir_server.portal", "pages"), PackageLoader("fhir_server.smart", "pages")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(smart: SmartContext, name: str, status: int = 200, targets: Sequence[str] = (), **view: Any) -> Response:
    """The page of this template.  ``targets``: where forms on it may end up, besides here."""
    shown: dict[str, Any] = {"problem": "", "session": None, "origin": smart.origin} | view
    text = _templates.get_template(name).render(organization=smart.organization, **shown)
    return Response(text, status, page_headers(*targets) | SAME_ORIGIN_OPENER, "text/html; charset=utf-8")


def to(path: str, **query: str) -> Response:
    """See that page next."""
    return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303, headers=NO_STORE)


def cookie(smart: SmartContext, request: Request) -> str:
    return cookies.session_cookie(smart, request)


def with_cookie(smart: SmartContext, answer: Response, value: str) -> Response:
    """The answer, giving the browser this new session."""
    return cookies.with_session_cookie(smart, answer, value)


def show_handler(smart: SmartContext, path: str, handler: ShowHandler) -> Callable[[Request], Awaitable[Response]]:
    """A page for those who are signed in; others sign in first and come back to ``path``."""

    async def guarded(request: Request) -> Response:
        session = await sessions.current(smart, cookie(smart, request))
        return to("/sign-in", next=path) if session is None else await handler(request, session)

    return guarded


def form_handler(smart: SmartContext, path: str, handler: FormHandler) -> Callable[[Request], Awaitable[Response]]:
    """What the forms of the page at ``path`` do; reached only by forms this browser was shown."""

    async def guarded(request: Request) -> Response:
        try:
            form: Form = await read_form(request)
        except BadFormError as error:
            return failure_page(smart, str(error))
        if not cookies.is_own_form(smart, request, dict(form).get("token", "")):
            return failure_page(smart, _FORGED, 403)
        session = await sessions.current(smart, cookie(smart, request))
        return to("/sign-in", next=path, lapsed="yes") if session is None else await handler(request, session, dict(form))

    return guarded


def back(path: str) -> Callable[[], Awaitable[Response]]:
    """For an address that only a form is sent to, and that a browser opens again by itself: the page of that form."""

    async def answer() -> Response:
        return to(path)

    return answer


def failure_page(smart: SmartContext, text: str, status: int = 400, session: Session | None = None) -> Response:
    return page(smart, "failed.html", status, text=text, session=session)


async def style() -> Response:
    """The rules this room adds to the common style sheet."""
    body = (files("fhir_server.portal") / "pages" / "portal.css").read_bytes()
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(body, 200, headers, "text/css; charset=utf-8")
