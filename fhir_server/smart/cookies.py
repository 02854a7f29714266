"""The one cookie: given to every browser that sees a form, worth a session once somebody has signed in."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from fhir_server.smart import sessions
from fhir_server.smart.core import Smart


def held(smart: Smart, request: Request) -> str:
    """The cookie this browser sent, or ""."""
    return request.cookies.get(sessions.cookie_name(smart), "")


def terms(smart: Smart) -> dict[str, Any]:
    """Its name and attributes."""
    secure = smart.origin.startswith("https:")
    return {"key": sessions.cookie_name(smart), "path": "/", "httponly": True, "samesite": "lax", "secure": secure}


def given(smart: Smart, answer: Response, cookie: str) -> Response:
    """The answer, giving the browser this cookie."""
    answer.set_cookie(value=cookie, **terms(smart))
    return answer
