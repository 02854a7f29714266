"""Sends requests to other health systems, and turns failures into :class:`LinkError` with a message for the page."""

from __future__ import annotations

from collections.abc import Awaitable

from fhir_server.linking.context import INVALID_RESPONSE, NO_RESPONSE, LinkingContext, UnreachableError
from fhir_server.smart.outbound.json_client import InvalidResponseError, JsonResponse, NoResponseError


async def get(context: LinkingContext, url: str, params: dict[str, str] | None = None, token: str = "") -> JsonResponse:
    """Send a GET request, with ``token`` as bearer token. Raises UnreachableError."""
    return await _as_link_error(context.json_client.get(url, params, token))


async def post_form(context: LinkingContext, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
    """POST a form-encoded body. Raises UnreachableError."""
    return await _as_link_error(context.json_client.post_form(url, body, headers))


async def _as_link_error(call: Awaitable[JsonResponse]) -> JsonResponse:
    try:
        return await call
    except NoResponseError:
        raise UnreachableError(NO_RESPONSE) from None
    except InvalidResponseError:
        raise UnreachableError(INVALID_RESPONSE) from None
