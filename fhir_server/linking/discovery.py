"""Finds the endpoints of another system's authorization server in its SMART discovery document.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html. All endpoints must have one origin: that of the FHIR base, or
the sign-in origin that the operator registered. A forged discovery document therefore cannot redirect this server's codes,
refresh tokens and assertions to an origin that the operator did not approve (RFC 9700 4.4 and 4.9).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.linking import http
from fhir_server.linking.context import NO_RESPONSE, LinkingContext, UnreachableError
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.json_client import as_text, is_callable_url, origin_of

_UNSAFE: Final = "It is not safe to sign in at the other health system at the moment. Contact our health information office."


class Endpoints(msgspec.Struct, frozen=True):
    """URLs of an authorization server; "" for an endpoint that it does not have.

    ``sends_issuer``  whether its authorization responses always have the parameter ``iss`` (RFC 9207)
    """

    authorization: str
    token: str
    revocation: str = ""
    jwks: str = ""
    issuer: str = ""
    sends_issuer: bool = msgspec.field(name="names_itself", default=False)


async def discover(context: LinkingContext, organization: Organization) -> Endpoints:
    """Fetch the discovery document and return its endpoints. Raises UnreachableError."""
    response = await http.get(context, f"{organization.base}/.well-known/smart-configuration")
    if response.status != 200 or not response.body:
        raise UnreachableError(NO_RESPONSE)
    document = response.body
    endpoints = Endpoints(
        authorization=as_text(document.get("authorization_endpoint")),
        token=as_text(document.get("token_endpoint")),
        revocation=as_text(document.get("revocation_endpoint")),
        jwks=as_text(document.get("jwks_uri")),
        issuer=as_text(document.get("issuer")),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods or not _is_safe(context, organization, endpoints):
        raise UnreachableError(_UNSAFE)
    return endpoints


def _is_safe(context: LinkingContext, organization: Organization, endpoints: Endpoints) -> bool:
    required = (endpoints.authorization, endpoints.token)
    optional = (endpoints.revocation, endpoints.jwks, endpoints.issuer)
    urls = (*required, *filter(None, optional))
    return all(is_callable_url(context.smart, url) and origin_of(url) == organization.authority for url in urls)
