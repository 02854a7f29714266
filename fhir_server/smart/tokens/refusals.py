"""Why an OAuth request was refused, in words for the audit log: error codes and texts of this server, nothing that a sender chose."""

from __future__ import annotations

from typing import Any, Final

from authlib.oauth2.rfc6749 import OAuth2Error

# Error codes of RFC 6749, RFC 6750, OpenID Connect Core and RFC 7591
_CODES: Final = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"),
        *("unsupported_response_type", "access_denied", "server_error", "temporarily_unavailable", "interaction_required"),
        *("login_required", "consent_required", "request_not_supported", "request_uri_not_supported", "unsupported_token_type"),
        *("registration_not_supported", "invalid_target", "invalid_dpop_proof"),
    }
)
# What a description says -> the cause.  Descriptions of the library may quote the request, so none is recorded as it is.
_CAUSES: Final = {
    "must push": "the request was not pushed",
    "dpop_jkt": "the parameter dpop_jkt is wrong",
    "response mode": "the response mode is not supported",
    "response_mode": "the response mode is not supported",
    "id_token_hint": "the id_token_hint is of another server or client",
    "parameter resource": "the parameter resource is not the FHIR base URL",
    "must sign in": "prompt=none, and nobody who may answer is signed in",
    "must allow this access": "prompt=none, and the person has not allowed this",
    "must choose on a page": "prompt=none, and the person must choose",
    "parameter prompt": "the parameter prompt is wrong",
    "parameter max_age": "the parameter max_age is wrong",
    "parameter display": "the parameter display is wrong",
    "may have": "a parameter is too long",
    "code_challenge": "PKCE with S256 is missing or wrong",
    "redirect uri": "the redirect URI is not registered",
    "redirect_uri": "the redirect URI is missing or not registered",
    "parameter aud": "the parameter aud is not the FHIR base URL",
    "the launch": "the launch is unknown, expired, used or for another client",
    "request objects": "request objects are not supported",
    "client_id": "the client is unknown",
    "client does not exist": "the client is unknown",
    "response_type": "the response type is not supported",
    "scope": "no scope is allowed",
}


def refusal_detail(error: OAuth2Error) -> dict[str, str]:
    """The code and the cause of a refusal, for the audit log."""
    return detail(error.error, error.description)


def detail(code: Any, description: Any) -> dict[str, str]:
    """As :func:`refusal_detail`, from the members of an error response."""
    text = str(description or "").lower()
    cause = next((cause for words, cause in _CAUSES.items() if words in text), "")
    return {"error": code if code in _CODES else "other"} | ({"cause": cause} if cause else {})
