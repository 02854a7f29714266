"""Error responses outside the handlers: unknown URL, wrong method, server error, store unavailable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from fhir_server.errors import Problem
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.pages import render
from fhir_server.web.forms import CORS, NO_STORE

# status -> OAuth error code (RFC 6749 4.1.2.1, 5.2), text
_ERRORS: Final = {
    404: ("invalid_request", "Page not found. The link may be old, or the URL may be mistyped."),
    405: ("invalid_request", "This page cannot be opened this way. Go back and open it again."),
    500: ("server_error", "Something went wrong on our side. Your account is not affected. Try again later."),
}


def busy_handler(smart: SmartContext) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the handler of :class:`~fhir_server.errors.Problem` with status 503, as a page or as an OAuth error.

    Raises any other error again.
    """

    async def handle(request: Request, error: Exception) -> Response:
        if not isinstance(error, Problem) or error.status != 503:
            raise error
        return unavailable_response(smart, request, str(error), error.retry_after)

    return handle


def http_error_handler(smart: SmartContext) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the handler of 404, 405 and 500, which answers with a page or with an OAuth error."""

    async def handle(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        code, text = _ERRORS.get(status, _ERRORS[500])
        return _error_response(smart, request, status, code, text, getattr(error, "headers", None) or {})

    return handle


def unavailable_response(smart: SmartContext, request: Request, text: str, retry_after: int) -> Response:
    """The answer 503 with a text, as a page or as an OAuth error."""
    return _error_response(smart, request, 503, "temporarily_unavailable", text, {"Retry-After": str(retry_after)})


def _error_response(smart: SmartContext, request: Request, status: int, code: str, text: str, headers: Mapping[str, str]) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": code, "error_description": text}, status, headers=NO_STORE | CORS | dict(headers))
    page = render(smart, "error.html", status, text=text, detail="", link=None if status == 503 else ("Go to the start page", "/"))
    page.headers.update(headers)
    return page
