"""What an authorization request may ask for, beside RFC 6749: SMART's ``aud`` and ``launch``, and the parameters of OpenID Connect.

A value that this server does not understand is refused, never ignored: an app that asks for a response by POST, or for a sign-in
of the last minute, would take any other answer for the one that it asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error

from fhir_server.smart.core.authlib import run_on_loop
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.scopes import resource_scopes
from fhir_server.smart.tokens import launch

RESPONSE_MODES: Final = ("query", "fragment", "form_post")
PROMPTS: Final = ("none", "login", "consent", "select_account")
DISPLAYS: Final = ("page", "popup", "touch")
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_MAX_AGE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
# Parameters that could contradict the others, or ask for more than a request without them (OpenID Connect Core 5.5, 6, 7.2.1).
_UNSUPPORTED: Final = {
    "request": ("request_not_supported", "This server does not support request objects."),
    "request_uri": ("request_uri_not_supported", "This server does not support request objects."),
    "registration": ("registration_not_supported", "This server does not support the parameter registration."),
    "claims": ("invalid_request", "This server does not support the parameter claims. Request scopes instead."),
}


class InvalidTargetError(OAuth2Error):
    """``resource`` names another server (RFC 8707)."""

    error = "invalid_target"


class RequestRules:
    """The rules as an extension of Authlib's grant."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart

    def __call__(self, grant: Any) -> None:
        grant.register_hook("after_validate_authorization_request_payload", self.check)

    def check(self, grant: Any, _: Any) -> None:
        """Raises OAuth2Error for a request that breaks a rule."""
        # A parameter without a value is an omitted one (RFC 6749 3.1), but not one that must name this server.
        parameters: dict[str, str] = grant.request.payload.data
        options = grant.request.client.record.options
        if not grant.request.is_pushed and (self._smart.require_pushed_requests or options.require_pushed_authorization_requests):
            raise InvalidRequestError("This client must push its authorization requests (RFC 9126).")
        if parameters.get("dpop_jkt") and not _THUMBPRINT.fullmatch(parameters["dpop_jkt"]):
            raise InvalidRequestError("The parameter dpop_jkt must be a SHA-256 JWK thumbprint.")
        for name, (error, text) in _UNSUPPORTED.items():
            if parameters.get(name):
                raise OAuth2Error(error=error, description=text)
        _check_values(parameters)
        self._check_audience(parameters, grant.request.scope)
        if "launch" in grant.request.scope.split() or parameters.get("launch"):
            context = run_on_loop(launch.find, self._smart.store, parameters.get("launch", ""), self._smart.now())
            if context is None or context.client_id != grant.request.client.get_client_id():
                raise InvalidRequestError("The launch is unknown, expired, used, or for another client.")

    def _check_audience(self, parameters: Mapping[str, str], scope: str) -> None:
        """SMART's ``aud``, or RFC 8707's ``resource``: one is needed for FHIR data, and neither may name another server."""
        check_resource(parameters, self._smart)
        is_needed = "aud" in parameters or ("resource" not in parameters and _is_for_fhir(scope))
        if is_needed and not _is_base(parameters.get("aud", ""), self._smart):
            raise InvalidRequestError("The parameter aud must be the FHIR base URL of this server.")


def check_resource(parameters: Mapping[str, str], smart: SmartContext) -> None:
    """Raises InvalidTargetError if the parameter ``resource`` is there and does not name this server."""
    if "resource" in parameters and not _is_base(parameters["resource"], smart):
        raise InvalidTargetError("The parameter resource must be the FHIR base URL of this server.")


def _check_values(parameters: Mapping[str, str]) -> None:
    mode, display, prompts = (parameters.get(name, "") for name in ("response_mode", "display", "prompt"))
    if mode and mode not in RESPONSE_MODES:
        raise InvalidRequestError(f"The parameter response_mode must be one of {', '.join(RESPONSE_MODES)}.")
    if mode == "form_post" and urlsplit(parameters.get("redirect_uri", "")).scheme not in ("http", "https"):
        raise InvalidRequestError("The response mode form_post needs an http or https redirect URI.")
    if display and display not in DISPLAYS:
        raise InvalidRequestError(f"The parameter display must be one of {', '.join(DISPLAYS)}.")
    if not set(prompts.split()) <= set(PROMPTS) or ("none" in prompts.split() and prompts.strip() != "none"):
        raise InvalidRequestError(f"The parameter prompt must have values of {', '.join(PROMPTS)}, and none only alone.")
    if parameters.get("max_age") and not _MAX_AGE.fullmatch(parameters["max_age"]):
        raise InvalidRequestError("The parameter max_age must be a number of seconds.")


def _is_for_fhir(scope: str) -> bool:
    """Whether a request asks for more than a sign-in: FHIR data, or a launch context."""
    return bool(resource_scopes(scope)) or any(name.startswith("launch") for name in scope.split())


def _is_base(url: str, smart: SmartContext) -> bool:
    return url.removesuffix("/") == smart.fhir_base
