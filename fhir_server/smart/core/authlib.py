"""Connects Authlib, whose server is synchronous, with this server's coroutines.

Authlib runs only inside :func:`run_in_thread`.  Code that Authlib calls there reaches the store through
:func:`run_on_loop`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

import anyio.from_thread
import anyio.to_thread
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Request
from authlib.oauth2.rfc6749.requests import OAuth2Payload
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from joserfc.jwk import KeySet

from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.web.forms import NO_STORE

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]

# Authlib includes these in error texts and raises ValueError if they contain a character that RFC 6749 forbids there.
_ECHOED: Final = ("client_id", "redirect_uri", "response_type", "grant_type", "code_challenge_method", "prompt")
_ALLOWED: Final = re.compile(r"[ !#-\[\]-~]*", re.ASCII)


async def run_in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run synchronous Authlib code in a worker thread and return its result."""
    return await anyio.to_thread.run_sync(work, *arguments)


def run_on_loop(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run ``call(*arguments)`` on the event loop and wait for its result.  Works only inside :func:`run_in_thread`."""
    return anyio.from_thread.run(call, *arguments)


@dataclass
class AuthlibResponse:
    """A response of Authlib: a JSON body, or a redirect."""

    status: int
    body: Any
    headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def location(self) -> str | None:
        return next((value for name, value in self.headers if name == "Location"), None)

    @location.setter
    def location(self, value: str) -> None:
        self.headers = [(name, old) for name, old in self.headers if name != "Location"] + [("Location", value)]


class Payload(OAuth2Payload):
    """The parameters of a request.  ``data`` has the first value of a repeated parameter, ``datalist`` has all."""

    def __init__(self, pairs: Pairs) -> None:
        self.lists: dict[str, list[str]] = {}
        for name, value in pairs:
            self.lists.setdefault(name, []).append(value)

    @property
    def data(self) -> dict[str, str]:
        return {name: values[0] for name, values in self.lists.items()}

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self.lists


class AuthlibRequest(OAuth2Request):
    """A request in the form that Authlib reads.

    The parameters come from the query (authorize by GET) or from the form, never from both.  ``token_grant`` is set to
    the grant that the request issued or revoked tokens of; ``keys`` to those of the client that a client assertion names;
    ``is_proven`` if the client has proved who it is, even if the request is refused after that; ``is_pushed`` if an authorization
    request was pushed (RFC 9126); ``jkt`` to the thumbprint of the key that signed a proof of the request
    (RFC 9449), and ``proof_use`` to what names its one use.
    """

    def __init__(self, method: str, uri: str, pairs: Pairs, authorization: str = "") -> None:
        self.token_grant: TokenGrant | None = None
        self.keys = KeySet([])
        self.is_proven = False
        self.is_pushed = False
        self.jkt = self.proof_use = ""
        headers = {"Authorization": authorization} if _is_readable(authorization) else {}
        super().__init__(method, uri, headers=headers)
        self.payload = Payload(pairs)

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data

    def check(self) -> None:
        """Raises InvalidRequestError for a repeated parameter (RFC 6749 3.1) and for a forbidden character."""
        if any(len(values) > 1 for values in self.payload.datalist.values()):
            raise InvalidRequestError("A parameter occurs more than once.")
        if not all(_ALLOWED.fullmatch(self.form.get(name, "")) for name in _ECHOED):
            raise InvalidRequestError("A parameter contains a character that is not allowed.")


def to_authlib_request(request: Request, origin: str, pairs: Pairs) -> AuthlibRequest:
    """The request for Authlib.  Its URL has the configured origin, whichever origin a proxy forwarded."""
    return AuthlibRequest(request.method, origin + request.url.path, pairs, request.headers.get("authorization", ""))


def to_http_response(response: AuthlibResponse, extra_headers: dict[str, str]) -> Response:
    """An Authlib response as an HTTP response."""
    headers = {name: value for name, value in response.headers if name != "Content-Type"} | extra_headers
    if response.location:
        # RedirectResponse would quote the URI again; a redirect URI must be used exactly as registered.
        return Response(None, response.status, NO_STORE | {"Location": response.location, "Referrer-Policy": "no-referrer"})
    return JSONResponse(response.body, response.status, headers=headers)


def basic_credentials(authorization: str) -> tuple[tuple[str, str], ...]:
    """The client ids and secrets that a ``Basic`` header may mean: as written, and form-decoded (RFC 6749 2.3.1).

    Empty for a header that is not ``Basic`` or has no colon.
    """
    client_id, colon, secret = _basic_text(authorization).partition(":")
    readings = ((client_id, secret), (unquote_plus(client_id), unquote_plus(secret)))
    return tuple(dict.fromkeys(readings)) if colon else ()


def _is_readable(authorization: str) -> bool:
    scheme = authorization.partition(" ")[0].lower()
    return bool(scheme) if scheme != "basic" else bool(_basic_text(authorization))


def _basic_text(authorization: str) -> str:
    """The decoded text of a ``Basic`` header; "" for another scheme and for invalid base64 or UTF-8."""
    scheme, _, rest = authorization.partition(" ")
    try:
        return base64.b64decode(rest.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:
        return ""
