"""Checks for the operator whether people can link accounts at an organization, and what they will get; reads nobody's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal, NamedTuple

from fhir_server.linking import http, scopes
from fhir_server.linking.context import LinkingContext, UnreachableError
from fhir_server.linking.discovery import fetch_document, find_problems, parse_endpoints
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.json_client import as_text

_VERSIONS: Final = {"4": "R4", "3": "STU3", "1": "DSTU2"}


class Finding(NamedTuple):
    """One result: a problem prevents linking, a warning does not."""

    rating: Literal["ok", "warning", "problem"]
    text: str


async def check(context: LinkingContext, organization: Organization) -> list[Finding]:
    """Return what was found, in the order in which a link needs it."""
    return [finding async for finding in _findings(context, organization)]


async def _findings(context: LinkingContext, organization: Organization) -> AsyncIterator[Finding]:
    redirect_uri = context.redirect_uri(organization)
    if organization.own_redirect_uri:
        yield Finding("ok", f"The redirect URI is its own: {redirect_uri}")
    else:
        text = f"The redirect URI {redirect_uri} is shared with other organizations. Register its own there, then use --own-redirect-uri"
        yield Finding("warning", text)
    try:
        response = await fetch_document(context, organization)
    except UnreachableError as problem:
        yield Finding("problem", f"The SMART configuration at {organization.base} could not be fetched: {problem.cause}")
        return
    problems = list(find_problems(context, organization, response))
    for problem_text in problems:
        yield Finding("problem", problem_text)
    if problems:
        return
    endpoints = parse_endpoints(response.body)
    yield Finding("ok", "The SMART configuration has the endpoints at the registered origin, and PKCE with S256")
    yield Finding("ok", f"These scopes are asked for: {endpoints.scope}")
    if missed := scopes.missing(endpoints.scope):
        yield Finding("warning", f"It lists scopes of single types, and none for: {', '.join(missed)}")
    if endpoints.sends_issuer:
        yield Finding("ok", "Its responses name their issuer (RFC 9207)")
    elif not organization.own_redirect_uri:
        yield Finding("warning", "Its responses do not name their issuer (RFC 9207), so only a redirect URI of its own tells them apart")
    methods = response.body.get("token_endpoint_auth_methods_supported")
    if organization.method != "none" and isinstance(methods, list) and organization.method not in methods:
        yield Finding("warning", f"token_endpoint_auth_methods_supported does not have {organization.method}")
    if not endpoints.revocation:
        yield Finding("warning", "It has no revocation endpoint: what a person unlinks here stays allowed there")
    yield await _check_version(context, organization)


async def _check_version(context: LinkingContext, organization: Organization) -> Finding:
    try:
        response = await http.get(context, organization, f"{organization.base}/metadata")
    except UnreachableError as problem:
        return Finding("warning", f"Its CapabilityStatement could not be fetched: {problem.cause}")
    version = as_text(response.body.get("fhirVersion"))
    known = _VERSIONS.get(version.partition(".")[0])
    if response.status != 200 or known is None:
        return Finding("warning", f"Its CapabilityStatement (status {response.status}) names no FHIR version that this server can show")
    return Finding("ok", f"Its FHIR version is {known}")
