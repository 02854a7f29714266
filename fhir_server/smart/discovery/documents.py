"""The SMART and OpenID configuration documents, built from the constants of the code that they describe.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html and OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server.smart.clients.assertion import ALGORITHMS, token_endpoint
from fhir_server.smart.clients.registration_routes import PATH as REGISTRATION
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.scopes import NAMED_SCOPES
from fhir_server.smart.discovery import brands
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
)
_SCOPES: Final = tuple(f"{level}/*.{access}" for level in ("patient", "user", "system") for access in ("rs", "cruds", "read"))


def smart_configuration(smart: SmartContext) -> dict[str, Any]:
    """The body of ``{fhir}/.well-known/smart-configuration``."""
    return _common(smart) | {
        "management_endpoint": f"{smart.origin}/apps",
        "user_access_brand_bundle": f"{smart.origin}{brands.PATH}",
        "user_access_brand_identifier": brands.identifier(smart),
        "capabilities": list(CAPABILITIES),
    }


def openid_configuration(smart: SmartContext) -> dict[str, Any]:
    """The body of ``{origin}/.well-known/openid-configuration``."""
    return _common(smart) | {
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "fhirUser"],
    }


def _common(smart: SmartContext) -> dict[str, Any]:
    methods = [method for method in AuthorizationCode.TOKEN_ENDPOINT_AUTH_METHODS if method != "none"]
    grants = (AuthorizationCode, RefreshToken, ClientCredentials)
    return {
        "issuer": smart.origin,
        "jwks_uri": f"{smart.origin}/oauth/jwks",
        "authorization_endpoint": f"{smart.origin}/oauth/authorize",
        "token_endpoint": token_endpoint(smart),
        "introspection_endpoint": f"{smart.origin}/oauth/introspect",
        "revocation_endpoint": f"{smart.origin}/oauth/revoke",
        "registration_endpoint": f"{smart.origin}{REGISTRATION}",
        "grant_types_supported": [grant.GRANT_TYPE for grant in grants],
        "response_types_supported": sorted(AuthorizationCode.RESPONSE_TYPES),
        "scopes_supported": [*NAMED_SCOPES, *_SCOPES],
        "code_challenge_methods_supported": list(Challenge.SUPPORTED_CODE_CHALLENGE_METHOD),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
    }
