"""Calls to other health systems, through the door of all outside calls; what goes wrong is worded for the person."""

from __future__ import annotations

from collections.abc import Awaitable

from fhir_server.linking.context import BAD_ANSWER, NO_ANSWER, LinkingContext, Unreachable
from fhir_server.smart.outbound.json_client import BadAnswer, NoAnswer, Reply


async def get(context: LinkingContext, url: str, params: dict[str, str] | None = None, token: str = "") -> Reply:
    """Raises Unreachable."""
    return await _told(context.outside.get(url, params, token))


async def post_form(context: LinkingContext, url: str, body: str, headers: dict[str, str]) -> Reply:
    """Raises Unreachable."""
    return await _told(context.outside.post_form(url, body, headers))


async def _told(call: Awaitable[Reply]) -> Reply:
    try:
        return await call
    except NoAnswer:
        raise Unreachable(NO_ANSWER) from None
    except BadAnswer:
        raise Unreachable(BAD_ANSWER) from None
