"""Where another system's authorization server is, from its own discovery document.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html.  Every endpoint must be at one origin: that of the FHIR
base, or the one the operator registered because that system signs people in elsewhere.  So a discovery document that
was tampered with cannot have our codes, refresh tokens and assertions sent to an origin that nobody here agreed to
(RFC 9700 4.4 and 4.9).
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.linking import http
from fhir_server.linking.context import NO_RESPONSE, LinkingContext, UnreachableError
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.json_client import as_text, is_callable_url, origin_of

_UNSOUND: Final = "The sign-in of the other health system cannot be used safely. Tell us, so that we can sort it out with them."


class Endpoints(msgspec.Struct, frozen=True):
    """An authorization server's addresses; "" for one it does not have.

    ``names_itself``  whether it says who it is in every answer it sends a browser back with (RFC 9207)
    """

    authorization: str
    token: str
    revocation: str = ""
    jwks: str = ""
    issuer: str = ""
    names_itself: bool = False


async def discover(context: LinkingContext, organization: Organization) -> Endpoints:
    """The endpoints as its discovery document states them now.  Raises Unreachable."""
    reply = await http.get(context, f"{organization.base}/.well-known/smart-configuration")
    if reply.status != 200 or not reply.body:
        raise UnreachableError(NO_RESPONSE)
    stated = reply.body
    endpoints = Endpoints(
        authorization=as_text(stated.get("authorization_endpoint")),
        token=as_text(stated.get("token_endpoint")),
        revocation=as_text(stated.get("revocation_endpoint")),
        jwks=as_text(stated.get("jwks_uri")),
        issuer=as_text(stated.get("issuer")),
        names_itself=stated.get("authorization_response_iss_parameter_supported") is True,
    )
    methods = stated.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods or not _require_sound(context, organization, endpoints):
        raise UnreachableError(_UNSOUND)
    return endpoints


def _require_sound(context: LinkingContext, organization: Organization, endpoints: Endpoints) -> bool:
    needed = (endpoints.authorization, endpoints.token)
    offered = (endpoints.revocation, endpoints.jwks, endpoints.issuer)
    stated = (*needed, *filter(None, offered))
    return all(is_callable_url(context.smart, url) and origin_of(url) == organization.authority for url in stated)
