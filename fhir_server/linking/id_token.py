"""Validates the id_token of a new link (OpenID Connect Core 3.1.3.7). The person's identity at the other system is not stored."""

from __future__ import annotations

from typing import Final

from fhir_server.linking import http
from fhir_server.linking.context import LinkError, LinkingContext
from fhir_server.linking.discovery import Endpoints
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.id_tokens import ExpectedClaims, InvalidIdTokenError, verify

_UNPROVEN: Final = "The identity of the other health system could not be verified. The account was not linked."


async def check(
    context: LinkingContext, organization: Organization, endpoints: Endpoints, nonce: str, token: object, access_token: str
) -> None:
    """Raise LinkError unless ``token`` is None or a valid id_token for this authorization request."""
    if token is None:
        return
    if not endpoints.jwks or not endpoints.issuer:
        raise LinkError(_UNPROVEN)
    keys = (await http.get(context, organization, endpoints.jwks)).body
    expected = ExpectedClaims(endpoints.issuer, organization.client_id, nonce, access_token)
    try:
        await verify(token, keys, expected, context.smart.now())
    except InvalidIdTokenError:
        raise LinkError(_UNPROVEN) from None
