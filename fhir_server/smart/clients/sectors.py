"""Fetches the list of redirect URIs at a ``sector_identifier_uri`` (OpenID Connect Dynamic Client Registration 1.0, 5)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from fhir_server.smart.core.context import SmartContext
from fhir_server.web.public_fetch import Hosts, UnfetchableError, fetch


async def lists(smart: SmartContext, url: str, redirect_uris: Iterable[str]) -> bool:
    """Whether the document at the URL names all these redirect URIs.  If not, anybody could join the sector of that host."""
    try:
        listed = json.loads((await fetch(smart.network, url, Hosts.of(smart.is_demo))).body)
    except (UnfetchableError, ValueError, RecursionError):
        return False
    return isinstance(listed, list) and all(uri in listed for uri in redirect_uris)
