"""A server of somebody else, to which the server under test sends requests: what it received, and with which statuses it answers."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from fhir_server.smart.core.context import SmartContext
from fhir_server.web.public_fetch import Network


class OutsideServer:
    """Answers with these statuses, one after the other (0: it is down), then with 200.  ``address``: what its host name stands for."""

    def __init__(self, smart: SmartContext, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[httpx.Request] = []
        self.address = "93.184.216.34"
        object.__setattr__(smart, "network", Network(self.resolve, httpx.MockTransport(self.answer)))

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return (self.address,)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if not status:
            raise httpx.ConnectError("down")
        return httpx.Response(status)
