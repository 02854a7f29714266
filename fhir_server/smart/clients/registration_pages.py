"""``/register-app``: the same registration as a form, for developers who would rather not write JSON."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from fhir_server.smart.accounts import cookies, sessions
from fhir_server.smart.clients import initial_access_tokens, registration
from fhir_server.smart.clients.registration import RegistrationError
from fhir_server.smart.clients.registration_routes import register_with_token
from fhir_server.smart.core.context import SmartContext, new_secret
from fhir_server.smart.core.rate_limits import RateLimit
from fhir_server.smart.pages import render
from fhir_server.web.forms import BadFormError, address, read_form, with_headers

PATH: Final = "/register-app"
_FORGED: Final = "This form was not opened in this browser, or it is too old. Go back and open the page again."
_NO_INVITATION: Final = "The registration code is not right, has run out, or was used already. Ask us for a new one."
_TOO_MANY: Final = "There have been too many registrations from your address. Try again in an hour."
_METHODS: Final = {
    "none": "On people's own devices or in their browser; it cannot keep a secret",
    "client_secret_basic": "On a server of yours that can keep a secret",
}
# metadata that the form does not give as it should -> what to do about it, in the form's words
_WANTED: Final = {
    "client_name": "Give the app a name of 3 to 60 letters.",
    "redirect_uris": "State one to ten redirect URIs, each on a line of its own and none twice.",
    "client_uri": "The website of the app must be a whole address, such as https://app.example.",
    "token_endpoint_auth_method": "Choose where the app runs.",
    "scope": "Tick at least one thing that the app may ask for.",
}
_SCOPES: Final = {
    "openid fhirUser": "Learn who has signed in",
    "launch launch/patient": "Open on one patient's record",
    "offline_access": "Keep access when the person is away",
    "patient/*.rs": "Read that record",
}


class RegistrationPages:
    """The page of one :class:`SmartContext`; ``limit`` is shared with the endpoint for programs."""

    def __init__(self, smart: SmartContext, limit: RateLimit) -> None:
        self._smart = smart
        self._limit = limit

    async def form(self, request: Request) -> Response:
        return self._page(request, {"method": "none", "scopes": list(_SCOPES)})

    async def sent(self, request: Request) -> Response:
        try:
            pairs = await read_form(request)
        except BadFormError as error:
            return render(self._smart, "error.html", 400, text=str(error), detail="")
        form = dict(pairs)
        if not cookies.is_own_form(self._smart, request, form.get("token", "")):
            return render(self._smart, "error.html", 403, text=_FORGED, detail="")
        given = form | {"scopes": [value for name, value in pairs if name == "scope"]}
        invitation = form.get("invitation", "").strip()
        if not self._smart.is_demo and not await initial_access_tokens.is_valid(self._smart.store, invitation, self._smart.now()):
            return self._page(request, given, _NO_INVITATION)
        who, now = address(request), self._smart.now()
        if not self._limit.count_if_allowed(who, now):
            return with_headers(self._page(request, given, _TOO_MANY, 429), self._limit.headers(who, now))
        try:
            done = await register_with_token(self._smart, _metadata(given), "" if self._smart.is_demo else invitation)
        except RegistrationError as refused:
            return self._page(request, given, _WANTED.get(refused.member) or str(refused))
        if done is None:
            return self._page(request, given, _NO_INVITATION)
        return render(self._smart, "app_registered.html", done=done, told=registration.client_information(self._smart, done))

    def _page(self, request: Request, given: dict[str, Any], problem: str = "", status: int = 400) -> Response:
        cookie = cookies.session_cookie(self._smart, request) or new_secret()
        page = render(
            self._smart,
            "register_app.html",
            status if problem else 200,
            problem=problem,
            token=sessions.form_token(cookie),
            given=given,
            methods=_METHODS,
            scopes=_SCOPES,
            invited=not self._smart.is_demo,
        )
        return page if cookies.session_cookie(self._smart, request) else cookies.with_session_cookie(self._smart, page, cookie)


def _metadata(given: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "client_name": " ".join(given.get("name", "").split()),
        "redirect_uris": given.get("redirects", "").split(),
        "token_endpoint_auth_method": given.get("method", ""),
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": " ".join(value for value in given["scopes"] if value in _SCOPES),
    }
    homepage = given.get("homepage", "").strip()
    return metadata | ({"client_uri": homepage} if homepage else {})


def add_registration_pages(routes: APIRouter, smart: SmartContext, limit: RateLimit) -> None:
    """Add the page's routes."""
    here = RegistrationPages(smart, limit)
    routes.add_api_route(PATH, here.form, methods=["GET"])
    routes.add_api_route(PATH, here.sent, methods=["POST"])
