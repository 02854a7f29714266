"""The metadata of the authorization server, for OAuth, OpenID and SMART clients, built from the constants of the code it describes.

RFC 8414, OpenID Connect Discovery 1.0 and https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html: one set of metadata, to which
the OpenID and SMART documents add what only their clients read.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server.smart.clients.assertion import ALGORITHMS
from fhir_server.smart.clients.registration_routes import PATH as REGISTRATION
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.scopes import NAMED_SCOPES
from fhir_server.smart.discovery import brands
from fhir_server.smart.tokens import dpop, id_tokens, pushed_requests, request_rules, userinfo
from fhir_server.smart.tokens.grants import AuthorizationCode, Challenge, ClientCredentials, RefreshToken

CAPABILITIES: Final = (
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
    "smart-app-state",
    "health-cards",
)
_ENDPOINTS: Final = {
    "authorization_endpoint": "/oauth/authorize",
    "token_endpoint": "/oauth/token",
    "introspection_endpoint": "/oauth/introspect",
    "revocation_endpoint": "/oauth/revoke",
    "registration_endpoint": REGISTRATION,
    "pushed_authorization_request_endpoint": pushed_requests.PATH,
}
_SCOPES: Final = tuple(f"{level}/*.{access}" for level in ("patient", "user", "system") for access in ("rs", "cruds", "read"))


def smart_configuration(smart: SmartContext) -> dict[str, Any]:
    """The body of ``{fhir}/.well-known/smart-configuration``."""
    return server_metadata(smart) | {
        "management_endpoint": f"{smart.origin}/apps",
        "user_access_brand_bundle": f"{smart.origin}{brands.PATH}",
        "user_access_brand_identifier": brands.identifier(smart),
        "capabilities": list(CAPABILITIES),
    }


def openid_configuration(smart: SmartContext) -> dict[str, Any]:
    """The body of ``{origin}/.well-known/openid-configuration``."""
    return server_metadata(smart) | {
        "userinfo_endpoint": f"{smart.origin}{userinfo.PATH}",
        "end_session_endpoint": f"{smart.origin}/oauth/logout",
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "subject_types_supported": ["public", "pairwise"],
        "id_token_signing_alg_values_supported": [id_tokens.ALGORITHM],
        "display_values_supported": list(request_rules.DISPLAYS),
        "acr_values_supported": [id_tokens.MULTI_FACTOR],
        "claim_types_supported": ["normal"],
        "claims_supported": list(id_tokens.CLAIMS),
        "claims_parameter_supported": False,
        "ui_locales_supported": ["en"],
    }


def server_metadata(smart: SmartContext) -> dict[str, Any]:
    """The body of ``{origin}/.well-known/oauth-authorization-server``."""
    methods = [method for method in AuthorizationCode.TOKEN_ENDPOINT_AUTH_METHODS if method != "none"]
    grants = (AuthorizationCode, RefreshToken, ClientCredentials)
    return {
        "issuer": smart.origin,
        "jwks_uri": f"{smart.origin}/oauth/jwks",
        **{name: f"{smart.origin}{path}" for name, path in _ENDPOINTS.items()},
        "grant_types_supported": [grant.GRANT_TYPE for grant in grants],
        "response_types_supported": sorted(AuthorizationCode.RESPONSE_TYPES),
        "response_modes_supported": list(request_rules.RESPONSE_MODES),
        "scopes_supported": [*NAMED_SCOPES, *_SCOPES],
        "prompt_values_supported": list(request_rules.PROMPTS),
        "code_challenge_methods_supported": list(Challenge.SUPPORTED_CODE_CHALLENGE_METHOD),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "require_pushed_authorization_requests": smart.require_pushed_requests,
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
