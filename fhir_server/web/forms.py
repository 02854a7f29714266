"""Forms, headers of pages, and CORS, for the pages and OAuth endpoints."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request, Response
from fastapi.responses import JSONResponse

Form = list[tuple[str, str]]
MAX_FORM: Final = 64 * 1024
MAX_FIELDS: Final = 500
_MAX_PATH: Final = 2_000  # characters of a path to which a sign-in leads: it is stored meanwhile
CORS: Final = {"Access-Control-Allow-Origin": "*"}
PREFLIGHT: Final = CORS | {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, DPoP, Content-Type, Accept",
    "Access-Control-Max-Age": "600",
}
_PAGE: Final = "default-src 'none'; style-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
# Not for authorization pages: an app may have opened them as a popup window and wait for the result.
SAME_ORIGIN_OPENER: Final = {"Cross-Origin-Opener-Policy": "same-origin"}
FORGED_FORM: Final = "This form was opened in another browser or is too old. Go back and open the page again."
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def address(request: Request) -> str:
    """Return the client's IP address, for rate limits; "" if it is not known."""
    return request.client.host if request.client else ""


class BadFormError(ValueError):
    """A body that is not a form within the limits.  The message is for the sender."""


async def read_form(request: Request) -> Form:
    """Read the fields of an ``application/x-www-form-urlencoded`` body.  Raises BadFormError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise BadFormError("The body must be application/x-www-form-urlencoded.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise BadFormError("The form is too large.")
    return fields(body.decode("utf-8", "replace"))


def fields(text: str) -> Form:
    """Parse form-encoded text.  Raises BadFormError if it has too many fields."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadFormError("The form has too many fields.") from None


def bad_form_response(error: BadFormError, extra: dict[str, str]) -> Response:
    """Return an OAuth error response for a bad form, with further headers."""
    body = {"error": "invalid_request", "error_description": str(error)}
    return JSONResponse(body, 400, headers=NO_STORE | extra)


def with_headers(response: Response, extra: dict[str, str]) -> Response:
    """Add headers to the response and return it."""
    response.headers.update(extra)
    return response


def page_headers(redirect_uri: str = "") -> dict[str, str]:
    """Return the headers of a page.

    ``redirect_uri``  where its form may redirect if it is a URI of an app on the device, with a scheme of its own.  Apps at http and
    https URLs are opened by a page of this server (``smart/accounts/app_handover.py``).
    """
    scheme = urlsplit(redirect_uri).scheme
    target = f" {scheme}:" if scheme and scheme not in ("http", "https") else ""
    return NO_STORE | {
        "Content-Security-Policy": f"{_PAGE}; form-action 'self'{target}",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }


def local_path(text: str) -> str:
    """Return ``text`` if it is a path on this server, else "/", so that a sign-in does not redirect to another site.

    Also "/" for a path that is too long to be stored meanwhile.
    """
    is_local = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable() and text.isascii()
    return text if is_local and len(text) <= _MAX_PATH and not urlsplit(text).netloc else "/"
