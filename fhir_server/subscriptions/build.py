"""Builds what delivers notifications in one server process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fhir_server.budget import BudgetLimits
from fhir_server.clock import Clock
from fhir_server.interactions.service import Service
from fhir_server.subscriptions.delivery import Delivery, Record
from fhir_server.subscriptions.dispatcher import Dispatcher
from fhir_server.subscriptions.socket_app import SocketApp
from fhir_server.subscriptions.sockets import Sockets
from fhir_server.web.public_fetch import Network


class Subscribers(NamedTuple):
    """What it is built from.

    ``network``  how endpoints are reached; ``record``: adds lines to the audit log; ``limits``: what one notification may spend
    ``origin``   the server's own; ``most``: websockets that this process holds at a time
    """

    service: Service
    network: Callable[[], Network]
    record: Record
    clock: Clock
    limits: BudgetLimits
    origin: str
    most: int

    def dispatcher(self, report: Callable[[Mapping[str, int]], None]) -> Dispatcher:
        """What delivers notifications; ``report`` is told how many Subscriptions have which status."""
        name = str(uuid.uuid4())
        delivery = Delivery(self.service, self.network, self.record, self.clock, self.limits, Sockets(self.service, name, self.most))
        return Dispatcher(self.service, delivery, name, self.clock, report)

    def socket_app(self, sockets: Sockets) -> SocketApp:
        """The ASGI application at which subscribers open websockets."""
        return SocketApp(self.service, sockets, self.record, self.clock, self.limits, self.origin)
