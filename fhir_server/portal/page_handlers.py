"""Renders the portal's pages and wraps their handlers: sign-in, form parsing and the protection against forged forms.

The pages use the layout and the HTTP headers of the sign-in pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fhir_server.smart.accounts import cookies, page_sessions
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


def render(smart: SmartContext, name: str, status: int = 200, **view: Any) -> Response:
    """Render the template ``name``."""
    values: dict[str, Any] = {"problem": "", "session": None, "origin": smart.origin} | view
    text = _templates.get_template(name).render(organization=smart.organization, **values)
    return Response(text, status, page_headers() | SAME_ORIGIN_OPENER, "text/html; charset=utf-8")


def redirect_to(path: str, **query: str) -> Response:
    """Redirect to ``path`` with status 303, so that the browser opens it with GET."""
    return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303, headers=NO_STORE)


def session_cookie(smart: SmartContext, request: Request) -> str:
    return cookies.session_cookie(smart, request)


async def current_session(smart: SmartContext, request: Request) -> Session | None:
    """The session of this browser, with the records that its person may open; None if nobody is signed in."""
    return await page_sessions.current(smart, session_cookie(smart, request))


def with_cookie(smart: SmartContext, response: Response, value: str) -> Response:
    """Set the session cookie on ``response`` and return it."""
    return cookies.with_session_cookie(smart, response, value)


def show_handler(smart: SmartContext, path: str, handler: ShowHandler) -> Callable[[Request], Awaitable[Response]]:
    """Call ``handler`` with the current session; without one, redirect to sign-in, which leads back to ``path``."""

    async def guarded(request: Request) -> Response:
        session = await current_session(smart, request)
        return redirect_to("/sign-in", next=path) if session is None else await handler(request, session)

    return guarded


def form_handler(smart: SmartContext, path: str, handler: FormHandler) -> Callable[[Request], Awaitable[Response]]:
    """Call ``handler`` with the current session and the fields of a form on the page at ``path``.

    A form without this browser's form token gets status 403. Without a session, the response redirects to sign-in.
    """

    async def guarded(request: Request) -> Response:
        try:
            form: Form = await read_form(request)
        except BadFormError as error:
            return render_failure(smart, str(error))
        if not cookies.is_own_form(smart, request, dict(form).get("token", "")):
            return render_failure(smart, _FORGED, 403)
        session = await current_session(smart, request)
        return redirect_to("/sign-in", next=path, lapsed="yes") if session is None else await handler(request, session, dict(form))

    return guarded


def redirect_handler(path: str) -> Callable[[], Awaitable[Response]]:
    """Redirect to ``path``: for GET on the URL of a form, which a browser sends when it restores a tab."""

    async def redirect() -> Response:
        return redirect_to(path)

    return redirect


def render_failure(smart: SmartContext, text: str, status: int = 400, session: Session | None = None) -> Response:
    return render(smart, "failed.html", status, text=text, session=session)


async def serve_style() -> Response:
    """Return the portal's own style sheet; it extends that of the sign-in pages."""
    body = (files("fhir_server.portal") / "pages" / "portal.css").read_bytes()
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(body, 200, headers, "text/css; charset=utf-8")
