"""Our two cookies, both random: the session's, and the one by which a device is known to its people.

The first is given to every browser that sees a form, and is worth a session once somebody has signed in.  The second only
lets those who have signed in on this device before do so again while somebody elsewhere guesses (``devices``).
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from fhir_server.smart.accounts import known_devices, sessions
from fhir_server.smart.core.context import SECOND, SmartContext


def session_cookie(smart: SmartContext, request: Request) -> str:
    """The session cookie this browser sent, or ""."""
    return request.cookies.get(sessions.cookie_name(smart), "")


def device_cookie(smart: SmartContext, request: Request) -> str:
    """The device cookie this browser sent, or ""."""
    return request.cookies.get(_device_name(smart), "")


def is_same_site(request: Request) -> bool:
    """Whether a request comes from a page of ours or from the person directly, as far as the browser says (Fetch Metadata)."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def is_own_form(smart: SmartContext, request: Request, token: str) -> bool:
    """Whether a form was shown to this browser by us: it has the token, and browsers that tell say that it comes from our pages."""
    return is_same_site(request) and sessions.is_form_token(session_cookie(smart, request), token)


def session_cookie_attributes(smart: SmartContext) -> dict[str, Any]:
    """The session cookie's name and attributes."""
    return {"key": sessions.cookie_name(smart), **_attributes(smart)}


def with_session_cookie(smart: SmartContext, answer: Response, cookie: str) -> Response:
    """The answer, giving the browser this session."""
    answer.set_cookie(value=cookie, **session_cookie_attributes(smart))
    return answer


def with_device_cookie(smart: SmartContext, answer: Response, cookie: str) -> Response:
    """The answer, giving the browser this device cookie."""
    answer.set_cookie(key=_device_name(smart), value=cookie, max_age=known_devices.LIFE // SECOND, **_attributes(smart))
    return answer


def _device_name(smart: SmartContext) -> str:
    return "__Host-device" if smart.origin.startswith("https:") else "device"


def _attributes(smart: SmartContext) -> dict[str, Any]:
    # The prefix __Host- has browsers refuse a cookie of that name that another host or an unencrypted page tries to plant.
    return {"path": "/", "httponly": True, "samesite": "lax", "secure": smart.origin.startswith("https:")}
