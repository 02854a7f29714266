"""What people and programs are answered where no handler does: an address nobody serves, a failure, a store that cannot be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from fhir_server.errors import Problem
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.pages import render
from fhir_server.web.forms import CORS, NO_STORE

_AGAIN = {"Retry-After": "1"}
# OAuth's word for it (RFC 6749 4.1.2.1, 5.2), and ours
_UNSERVED: Final = {
    404: ("invalid_request", "There is no page at this address. It may have been mistyped, or the link may be old."),
    405: ("invalid_request", "This address cannot be opened in this way. Go back and open the page again."),
    500: ("server_error", "Something went wrong on our side. Nothing is wrong with your account; try again in a while."),
}


def busy_handler(smart: SmartContext) -> Callable[[Request, Exception], Awaitable[Response]]:
    """The handler of :class:`~fhir_server.errors.Problem` ``busy``: 503, as a page or as an OAuth error (RFC 6749 4.1.2.1)."""

    async def answer(request: Request, problem: Exception) -> Response:
        if not isinstance(problem, Problem) or problem.kind != "busy":
            raise problem
        return _answer(smart, request, 503, "temporarily_unavailable", str(problem), _AGAIN)

    return answer


def http_error_handler(smart: SmartContext) -> Callable[[Request, Exception], Awaitable[Response]]:
    """The handler of 404, 405 and 500: for an address or a method that nobody serves, and for what should not have happened."""

    async def answer(request: Request, problem: Exception) -> Response:
        status = getattr(problem, "status_code", 500)
        error, text = _UNSERVED.get(status, _UNSERVED[500])
        return _answer(smart, request, status, error, text, getattr(problem, "headers", None) or {})

    return answer


def _answer(smart: SmartContext, request: Request, status: int, error: str, text: str, headers: Mapping[str, str]) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": error, "error_description": text}, status, headers=NO_STORE | CORS | dict(headers))
    page = render(smart, "error.html", status, text=text, detail="", on=None if status == 503 else ("To the start page", "/"))
    page.headers.update(headers)
    return page
