"""The page that posts an authorization response to the app (OAuth 2.0 Form Post Response Mode)."""

from __future__ import annotations

import base64
import hashlib
from typing import Final
from urllib.parse import urlsplit

from fastapi import Response

from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.pages import render
from fhir_server.smart.tokens.response_modes import added_parameters
from fhir_server.web.forms import with_headers

SUBMIT: Final = "document.getElementById('answer').submit()"
_HASH: Final = base64.b64encode(hashlib.sha256(SUBMIT.encode()).digest()).decode()


def form_post_page(smart: SmartContext, request: AuthlibRequest, response: AuthlibResponse) -> Response | None:
    """The page for a response that the app wants by POST; None for any other.

    Its form is sent by a script, or by its button where scripts are off.  It goes to a registered redirect URI, which may
    redirect on to any site, and browsers hold the whole chain to ``form-action``.  A silent answer is given in a frame of the app,
    so the app's origin may frame it.
    """
    redirect_uri = request.form.get("redirect_uri", "")
    is_web = urlsplit(redirect_uri).scheme in ("http", "https")  # any other is refused, and told so by a redirect
    if not response.location or not is_web or request.form.get("response_mode") != "form_post":
        return None
    pairs = added_parameters(response.location, redirect_uri)
    page = render(smart, "form_post.html", action=redirect_uri, pairs=pairs, script=SUBMIT)
    parts, ancestors = urlsplit(redirect_uri), "'none'"
    if request.form.get("prompt", "").strip() == "none" and not {";", ","} & set(parts.netloc):
        ancestors = f"{parts.scheme}://{parts.netloc}"
        del page.headers["X-Frame-Options"]
    policy = page.headers["Content-Security-Policy"].partition("; frame-ancestors")[0]
    policy += f"; frame-ancestors {ancestors}; form-action http: https:; script-src 'sha256-{_HASH}'"
    return with_headers(page, {"Content-Security-Policy": policy})
