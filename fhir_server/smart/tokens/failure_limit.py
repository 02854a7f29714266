"""Limits failed client authentications, by client and network address: :data:`MAX_FAILURES` a minute.

Only what can be a guess counts.  A client that has proved who it is, and fails for another reason, guesses nothing: of parallel
requests with one assertion all but one fail, and they must not shut out the institution's backends behind the same address.  Once
the limit is reached, secrets for this client from this address are not looked at.  A signature cannot be guessed: an assertion is
always verified, and the limit only ends the failures with 429 instead of 401.
"""

from __future__ import annotations

from typing import Final

from fhir_server.smart.clients import clients
from fhir_server.smart.core.authlib import AuthlibRequest, AuthlibResponse, basic_credentials
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.core.rate_limits import RateLimit

MAX_FAILURES: Final = 100


class FailureLimit:
    """The limit of one :class:`SmartContext`."""

    def __init__(self, smart: SmartContext) -> None:
        self._smart = smart
        self._limit = RateLimit("client authentication", MAX_FAILURES, MINUTE)

    async def wait_before(self, request: AuthlibRequest, address: str) -> int:
        """The microseconds that a request with a client secret must wait; 0 for none, and for requests without a secret."""
        values, now = self._smart.store.key_values, self._smart.now()
        waits = [await self._limit.wait(values, address, now, client) for client in _clients_with_secret(request)]
        return max(waits, default=0)

    async def count(self, request: AuthlibRequest, response: AuthlibResponse, address: str) -> int:
        """Count the response if it refuses a guess.  The microseconds to wait if that is one too many; then nothing is counted."""
        if response.body.get("error") != "invalid_client" or request.is_proven:
            return 0
        named = [request.client.get_client_id()] if request.client else [*_clients_with_secret(request), request.form.get("client_id", "")]
        # Names of no client count together, so that inventing names neither evades the limit nor fills the store.
        known = [name for name in named if name and await clients.find(self._smart.store, name) is not None]
        return await self._limit.take(self._smart.store.key_values, address, self._smart.now(), known[0] if known else "")


def _clients_with_secret(request: AuthlibRequest) -> list[str]:
    """The client ids for which the request presents a secret."""
    presented = [client_id for client_id, _ in basic_credentials(request.headers.get("Authorization", ""))]
    return presented + ([request.form.get("client_id", "")] if "client_secret" in request.form else [])
