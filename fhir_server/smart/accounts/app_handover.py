"""Sends a browser from a form of this server on to an app: by a page of its own, which opens the app's URL with GET.

A browser may apply the directive ``form-action`` of the page with the form to every redirect that follows (Chromium and WebKit do).
An app's callback or launch URI may redirect anywhere, so no directive could list the targets.  After the form, the browser is
redirected to ``/to-app`` on this server, which ends the form's chain of redirects; that page refreshes to the app and has a link,
and needs no scripts.

The URL holds a code or a launch handle.  It is stored encrypted with the handle in the address of the page, is shown once, in the
browser that sent the form, and for a minute.
"""

from __future__ import annotations

import base64
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
from cryptography.fernet import Fernet
from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies
from fhir_server.smart.core.context import CODE_LIFE, SmartContext, digest, new_secret
from fhir_server.smart.core.encryption import derive_key
from fhir_server.smart.pages import render
from fhir_server.web.forms import NO_STORE

PATH: Final = "/to-app"
_KIND: Final = "to-app"
_PURPOSE: Final = "fhir-server URL of an app"
_GONE: Final = (
    "You have already gone on to the app from here, or this page is too old. Go back to the app. "
    "If it does not continue, start again there."
)


class _Target(msgspec.Struct, frozen=True):
    url: str
    name: str


async def hand_over(smart: SmartContext, request: Request, url: str, name: str) -> Response:
    """The answer to a form: leads the browser to ``url`` of the app ``name``.

    An app on the device (a URI with a scheme of its own) is opened directly: nothing can redirect after that.  ``url`` is used as
    it is; a redirect of the framework would quote it again.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        return _redirect(url)
    handle = new_secret()
    sealed = _fernet(handle).encrypt(msgspec.json.encode(_Target(url, name)))
    await smart.store.key_values.put(_KIND, _key(smart, request, handle), sealed, smart.now() + CODE_LIFE)
    return _redirect(f"{PATH}?{urlencode({'page': handle})}")


def add_app_handover(routes: APIRouter, smart: SmartContext) -> None:
    """Add the page's route."""

    async def show(request: Request) -> Response:
        handle = request.query_params.get("page", "")
        sealed = await smart.store.key_values.pop(_KIND, _key(smart, request, handle), smart.now())
        if sealed is None:
            return render(smart, "error.html", 400, text=_GONE, detail="", link=("Go to the start page", "/"))
        target = msgspec.json.decode(_fernet(handle).decrypt(sealed), type=_Target)
        return render(smart, "to_app.html", url=target.url, app=target.name)

    routes.add_api_route(PATH, show, methods=["GET"])


def _redirect(url: str) -> Response:
    return Response(None, 303, NO_STORE | {"Location": url, "Referrer-Policy": "no-referrer"})


def _key(smart: SmartContext, request: Request, handle: str) -> str:
    return digest(f"{cookies.session_cookie(smart, request)}:{handle}")


def _fernet(handle: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derive_key(handle.encode(), _PURPOSE)))
