"""Finds the endpoints of another system's authorization server in its SMART discovery document.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html. All endpoints must have one origin: that of the FHIR base, or
the sign-in origin that the operator registered. A forged discovery document therefore cannot redirect this server's codes,
refresh tokens and assertions to an origin that the operator did not approve (RFC 9700 4.4 and 4.9).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from fhir_server.linking import http, scopes
from fhir_server.linking.context import LinkingContext, UnreachableError, log_failure
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.json_client import JsonResponse, as_text, is_callable_url, origin_of

_UNSAFE: Final = "It is not safe to sign in at the other health system at the moment. Contact our health information office."
_NO_DOCUMENT: Final = "The other health system does not say how to sign in there. Contact our health information office."
_MAX_QUOTED: Final = 200  # characters of another server's text in the log


class Endpoints(msgspec.Struct, frozen=True):
    """URLs of an authorization server; "" for an endpoint that it does not have.

    ``sends_issuer``  whether its authorization responses always have the parameter ``iss`` (RFC 9207)
    ``scope``  the scopes to ask for
    """

    authorization: str
    token: str
    revocation: str = ""
    jwks: str = ""
    issuer: str = ""
    sends_issuer: bool = msgspec.field(name="names_itself", default=False)
    scope: str = scopes.ALL_V2


async def discover(context: LinkingContext, organization: Organization) -> Endpoints:
    """Fetch the discovery document and return its endpoints. Raises UnreachableError, after a line in the server's log."""
    try:
        response = await fetch_document(context, organization)
        problems = list(find_problems(context, organization, response))
        if problems:
            raise UnreachableError(_UNSAFE if response.status == 200 and response.body else _NO_DOCUMENT, "; ".join(problems))
        return parse_endpoints(response.body)
    except UnreachableError as problem:
        log_failure(organization, "people cannot link accounts", problem.cause)
        raise


async def fetch_document(context: LinkingContext, organization: Organization) -> JsonResponse:
    """Fetch the discovery document, whatever its status. Raises UnreachableError."""
    return await http.get(context, organization, f"{organization.base}/.well-known/smart-configuration")


def parse_endpoints(document: dict[str, Any]) -> Endpoints:
    """Return the endpoints that a discovery document names."""
    return Endpoints(
        authorization=as_text(document.get("authorization_endpoint")),
        token=as_text(document.get("token_endpoint")),
        revocation=as_text(document.get("revocation_endpoint")),
        jwks=as_text(document.get("jwks_uri")),
        issuer=as_text(document.get("issuer")),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        scope=scopes.choose(document),
    )


def find_problems(context: LinkingContext, organization: Organization, response: JsonResponse) -> Iterator[str]:
    """Yield why people cannot sign in with this discovery document, in words for the operator; nothing if they can."""
    if response.status != 200:
        yield f"its SMART configuration was answered with status {response.status}"
        return
    document = response.body
    if not document:
        yield "its SMART configuration is not a JSON object"
        return
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield "code_challenge_methods_supported does not have S256 (PKCE), which this server needs"
    for name in ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri", "issuer"):
        value = document.get(name)
        if not value and name not in ("authorization_endpoint", "token_endpoint"):
            continue
        if problem := _problem_of(context, organization, value):
            yield f"{name} {problem}"


def _problem_of(context: LinkingContext, organization: Organization, value: object) -> str:
    if not value:
        return "is missing"
    quoted = repr(value)[:_MAX_QUOTED]
    if isinstance(value, str) and "://" not in value:
        return f"is {quoted}, which is not an absolute URL"
    if not isinstance(value, str) or not is_callable_url(context.smart, value):
        return f"is {quoted}, which is not an https URL that this server may call"
    if origin_of(value) != organization.authority:
        return f"is at {origin_of(value)}, and not at {organization.authority}, the registered sign-in origin (--sign-in)"
    return ""
