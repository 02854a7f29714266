"""Between Authlib, whose server is synchronous, and our coroutines: Authlib runs in a worker thread and calls back.

Authlib code is entered through :func:`in_thread` alone; whatever of ours it calls reaches the store through
:func:`wait`, which runs a coroutine function on the event loop and waits for its result.
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

# Authlib repeats these in error texts, and fails with ValueError where RFC 6749 allows a character in none.
_REPEATED: Final = ("client_id", "redirect_uri", "response_type", "grant_type", "code_challenge_method", "prompt")
_PLAIN: Final = re.compile(r"[ !#-\[\]-~]*", re.ASCII)


async def run_in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run synchronous Authlib code beside the event loop."""
    return await anyio.to_thread.run_sync(work, *arguments)


def run_on_loop(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run ``call(*arguments)`` on the event loop and wait; only inside :func:`in_thread`."""
    return anyio.from_thread.run(call, *arguments)


@dataclass
class AuthlibResponse:
    """What Authlib decided: a JSON body, or a redirect."""

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
    """The parameters of a request; the first of any that is repeated."""

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
    """A request as Authlib reads it: the parameters of the query (authorize by GET) or of the form, never of both."""

    def __init__(self, method: str, uri: str, pairs: Pairs, authorization: str = "") -> None:
        self.token_grant: TokenGrant | None = None  # what the request has turned out to be about
        self.keys = KeySet([])  # of the client that an assertion is said to be by
        headers = {"Authorization": authorization} if _readable(authorization) else {}
        super().__init__(method, uri, headers=headers)
        self.payload = Payload(pairs)

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data

    def check(self) -> None:
        """Raises InvalidRequestError for repeated parameters (RFC 6749 3.1) and for characters no parameter may have."""
        if any(len(values) > 1 for values in self.payload.datalist.values()):
            raise InvalidRequestError("A parameter is repeated.")
        if not all(_PLAIN.fullmatch(self.form.get(name, "")) for name in _REPEATED):
            raise InvalidRequestError("A parameter has a character that it may not have.")


def to_authlib_request(request: Request, origin: str, pairs: Pairs) -> AuthlibRequest:
    """The request as Authlib reads it; under our own origin, whatever a proxy made of the address."""
    return AuthlibRequest(request.method, origin + request.url.path, pairs, request.headers.get("authorization", ""))


def to_http_response(answer: AuthlibResponse, extra: dict[str, str]) -> Response:
    """An Authlib answer as an HTTP response."""
    headers = {name: value for name, value in answer.headers if name != "Content-Type"} | extra
    if answer.location:
        # Not RedirectResponse, which re-quotes: a redirect URI is used exactly as it was registered.
        return Response(None, answer.status, NO_STORE | {"Location": answer.location, "Referrer-Policy": "no-referrer"})
    return JSONResponse(answer.body, answer.status, headers=headers)


def basic_credentials(authorization: str) -> tuple[tuple[str, str], ...]:
    """What a ``Basic`` header may mean: id and secret as they stand in it, and as they are once form-decoded."""
    client_id, colon, secret = _basic_text(authorization).partition(":")
    readings = ((client_id, secret), (unquote_plus(client_id), unquote_plus(secret)))
    return tuple(dict.fromkeys(readings)) if colon else ()


def _readable(authorization: str) -> bool:
    scheme = authorization.partition(" ")[0].lower()
    return bool(scheme) if scheme != "basic" else bool(_basic_text(authorization))


def _basic_text(authorization: str) -> str:
    """The text in a ``Basic`` header; "" for any other, and for what is not text."""
    scheme, _, rest = authorization.partition(" ")
    try:
        return base64.b64decode(rest.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:
        return ""
