"""``/register-app``: the registration form for developers, with the same result as RFC 7591 registration."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.clients import initial_access_tokens, registration
from fhir_server.smart.clients.registration import RegistrationError
from fhir_server.smart.clients.registration_routes import register_with_token
from fhir_server.smart.core.context import SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit, retry_after
from fhir_server.smart.pages import render
from fhir_server.web.forms import BadFormError, address, read_form, with_headers

PATH: Final = "/register-app"
_FORGED: Final = "This form was not opened in this browser, or it has expired. Go back and open the page again."
_INVALID_TOKEN: Final = "The registration code is incorrect, has expired or was already used. Ask the organization for a new code."
_TOO_MANY: Final = "Too many registrations from your IP address. Try again in an hour."
_METHODS: Final = {
    "none": "On the user's device or in the browser (public client, without a secret)",
    "client_secret_basic": "On a server (confidential client, with a secret)",
}
# missing or malformed metadata -> instruction for the developer
_INSTRUCTIONS: Final = {
    "client_name": "Enter a name of 3 to 60 characters.",
    "redirect_uris": "Enter one to ten different redirect URIs, one per line.",
    "client_uri": "Enter the complete URL of the app's website, for example https://app.example.",
    "token_endpoint_auth_method": "Choose where the app runs.",
    "scope": "Select at least one permission.",
}
_SCOPES: Final = {
    "openid fhirUser": "Identify the signed-in user",
    "launch launch/patient": "Open with one patient selected",
    "offline_access": "Keep access when the user is offline",
    "patient/*.rs": "Read the patient's record",
}


class RegistrationPages:
    """The handlers of one :class:`SmartContext`.  ``limit`` is shared with the JSON endpoint."""

    def __init__(self, smart: SmartContext, limit: RateLimit) -> None:
        self._smart = smart
        self._limit = limit

    async def form(self, request: Request) -> Response:
        """``GET``: the empty form."""
        return self._page(request, {"method": "none", "scopes": list(_SCOPES)})

    async def submit(self, request: Request) -> Response:
        """``POST``: register the app, or display the form with a message."""
        try:
            pairs = await read_form(request)
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        form = dict(pairs)
        if not cookies.is_own_form(self._smart, request, form.get("token", "")):
            return render(self._smart, "error.html", 403, text=_FORGED, detail="")
        values = form | {"scopes": [value for name, value in pairs if name == "scope"]}
        token = form.get("invitation", "").strip()
        if not self._smart.is_demo and not await initial_access_tokens.is_valid(self._smart.store, token, self._smart.now()):
            return self._page(request, values, _INVALID_TOKEN)
        if wait := await self._limit.take(self._smart.store.key_values, address(request), self._smart.now()):
            return with_headers(self._page(request, values, _TOO_MANY, 429), retry_after(wait))
        try:
            registered = await register_with_token(self._smart, _metadata(values), "" if self._smart.is_demo else token)
        except RegistrationError as error:
            return self._page(request, values, _INSTRUCTIONS.get(error.member) or str(error))
        if registered is None:
            return self._page(request, values, _INVALID_TOKEN)
        return render(
            self._smart, "app_registered.html", registered=registered, information=registration.client_information(self._smart, registered)
        )

    def _page(self, request: Request, values: dict[str, Any], problem: str = "", status: int = 400) -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        page = render(
            self._smart,
            "register_app.html",
            status if problem else 200,
            problem=problem,
            token=sessions.form_token(cookie),
            values=values,
            methods=_METHODS,
            scopes=_SCOPES,
            invited=not self._smart.is_demo,
        )
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def _metadata(values: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "client_name": " ".join(values.get("name", "").split()),
        "redirect_uris": values.get("redirects", "").split(),
        "token_endpoint_auth_method": values.get("method", ""),
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": " ".join(value for value in values["scopes"] if value in _SCOPES),
    }
    homepage = values.get("homepage", "").strip()
    return metadata | ({"client_uri": homepage} if homepage else {})


def add_registration_pages(routes: APIRouter, smart: SmartContext, limit: RateLimit) -> None:
    """Add the routes of the registration form."""
    pages = RegistrationPages(smart, limit)
    routes.add_api_route(PATH, pages.form, methods=["GET"])
    routes.add_api_route(PATH, pages.submit, methods=["POST"])
