"""The server's two cookies, both random: the session cookie and the device cookie.

Every browser that opens a form gets a session cookie; after sign-in it identifies a session.  The device cookie gives
users who have signed in on this device before their own attempts, so guesses from elsewhere do not lock them out
(:mod:`~fhir_server.smart.accounts.known_devices`).
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from fhir_server.smart.accounts import known_devices, sessions
from fhir_server.smart.core.context import SECOND, SmartContext


def session_cookie(smart: SmartContext, request: Request) -> str:
    """Return the session cookie of this request, or ""."""
    return request.cookies.get(sessions.cookie_name(smart), "")


def device_cookie(smart: SmartContext, request: Request) -> str:
    """Return the device cookie of this request, or ""."""
    return request.cookies.get(_device_name(smart), "")


def is_same_site(request: Request) -> bool:
    """Whether the request comes from this site or from the user directly, by Sec-Fetch-Site.  True without that header."""
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def is_own_form(smart: SmartContext, request: Request, token: str) -> bool:
    """Whether this server rendered the form for this browser: the form token matches, and the request is same-site."""
    return is_same_site(request) and sessions.is_form_token(session_cookie(smart, request), token)


def session_cookie_attributes(smart: SmartContext) -> dict[str, Any]:
    """Return the name and attributes of the session cookie, for ``set_cookie`` and ``delete_cookie``."""
    return {"key": sessions.cookie_name(smart), **_attributes(smart)}


def with_session_cookie(smart: SmartContext, response: Response, cookie: str) -> Response:
    """Set the session cookie on the response and return the response."""
    response.set_cookie(value=cookie, **session_cookie_attributes(smart))
    return response


def with_device_cookie(smart: SmartContext, response: Response, cookie: str) -> Response:
    """Set the device cookie on the response and return the response."""
    response.set_cookie(key=_device_name(smart), value=cookie, max_age=known_devices.LIFE // SECOND, **_attributes(smart))
    return response


def _device_name(smart: SmartContext) -> str:
    return "__Host-device" if smart.origin.startswith("https:") else "device"


def _attributes(smart: SmartContext) -> dict[str, Any]:
    # With the prefix __Host-, browsers reject such a cookie from another host or an unencrypted page.
    return {"path": "/", "httponly": True, "samesite": "lax", "secure": smart.origin.startswith("https:")}
