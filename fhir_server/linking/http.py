"""Sends requests to other health systems, and turns failures into :class:`LinkError` with a message for the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fhir_server.linking import budget
from fhir_server.linking.context import (
    INVALID_RESPONSE,
    NO_RESPONSE,
    SLOW,
    BusyError,
    LinkingContext,
    SlowError,
    UnreachableError,
    UnusableError,
)
from fhir_server.linking.organizations import Organization
from fhir_server.smart.outbound.json_client import InvalidResponseError, JsonResponse, NoResponseError, SlowResponseError

Call = Callable[[], Awaitable[JsonResponse]]


async def get(
    context: LinkingContext, organization: Organization, url: str, params: dict[str, str] | None = None, token: str = ""
) -> JsonResponse:
    """Send a GET request within the partner's budget, with ``token`` as bearer token. Raises UnreachableError."""
    return await _within_budget(context, organization, lambda: context.json_client.get(url, params, token))


async def post_form(context: LinkingContext, organization: Organization, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
    """POST a form-encoded body within the partner's budget. Raises UnreachableError."""
    return await _within_budget(context, organization, lambda: context.json_client.post_form(url, body, headers))


async def post_at_once(context: LinkingContext, url: str, body: str, headers: dict[str, str]) -> JsonResponse:
    """POST a form-encoded body outside of any budget: a revocation, which must not wait. Raises UnreachableError."""
    return await _as_link_error(lambda: context.json_client.post_form(url, body, headers))


async def _within_budget(context: LinkingContext, organization: Organization, call: Call) -> JsonResponse:
    async with budget.turn(context, organization):
        response = await _as_link_error(call)
        # Before the next call may begin
        if response.status == 429 or (response.status == 503 and response.retry_after):
            raise BusyError(await budget.pause(context, organization, response.retry_after), asked=True)
    return response


async def _as_link_error(call: Call) -> JsonResponse:
    try:
        return await call()
    except SlowResponseError:
        raise SlowError(SLOW, "it did not answer in time") from None
    except NoResponseError:
        raise UnreachableError(NO_RESPONSE, "no connection, or it broke off") from None
    except InvalidResponseError:
        raise UnusableError(INVALID_RESPONSE, "its response is too large or compressed") from None
