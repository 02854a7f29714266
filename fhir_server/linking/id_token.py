"""The id_token that comes with a link.  Who the person is over there is not kept; the token must only be what it should be."""

from __future__ import annotations

from typing import Final

from fhir_server.linking import http
from fhir_server.linking.context import LinkError, LinkingContext
from fhir_server.linking.discovery import Endpoints
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.id_tokens import ExpectedClaims, InvalidIdTokenError, verify

_UNPROVEN: Final = "The other health system did not prove who it is. Nothing was linked."


async def check(
    context: LinkingContext, organization: Organization, endpoints: Endpoints, nonce: str, token: object, access_token: str
) -> None:
    """Raises LinkProblem for an id_token that is not the one of this link; none at all is none to doubt."""
    if token is None:
        return
    if not endpoints.jwks or not endpoints.issuer:
        raise LinkError(_UNPROVEN)
    keys = (await http.get(context, endpoints.jwks)).body
    expected = ExpectedClaims(endpoints.issuer, organization.client_id, nonce, access_token)
    try:
        await verify(token, keys, expected, context.smart.now())
    except InvalidIdTokenError:
        raise LinkError(_UNPROVEN) from None
