"""Calls to other health systems, through the door of all outside calls; what goes wrong is worded for the person."""

from __future__ import annotations

from collections.abc import Awaitable

from fhir_server.linking.context import INVALID_RESPONSE, NO_RESPONSE, LinkingContext, UnreachableError
from fhir_server.smart.outbound.json_client import InvalidResponseError, JsonResponse, NoResponseError


async def get(context: LinkingContext, url: str, params: dict[str, str] | None = None, token: str = "") -> JsonResponse:
    """Raises Unreachable."""
    return await _as_link_error(context.json_client.get(url, params, token))


async def post_form(context: LinkingContext, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
    """Raises Unreachable."""
    return await _as_link_error(context.json_client.post_form(url, body, headers))


async def _as_link_error(call: Awaitable[JsonResponse]) -> JsonResponse:
    try:
        return await call
    except NoResponseError:
        raise UnreachableError(NO_RESPONSE) from None
    except InvalidResponseError:
        raise UnreachableError(INVALID_RESPONSE) from None
