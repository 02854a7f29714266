"""What all modules of linking share: :class:`LinkingContext`, the errors, and their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.outbound.json_client import JsonClient

NO_RESPONSE: Final = "The other health system cannot be reached at the moment. Try again later."
INVALID_RESPONSE: Final = "The other health system sent an invalid response. Try again later."
ENDED: Final = "The other health system no longer accepts this link. Link the account again."


class LinkError(Exception):
    """A link failed. The message is for the page; it quotes nothing that another server sent."""


class UnreachableError(LinkError):
    """The other system sent no usable response. The link may still work later."""


class LinkEndedError(LinkError):
    """The link has expired or the other system revoked it. The person must link the account again."""


class NotSharedError(LinkError):
    """The other system does not share this resource type over this link."""


@dataclass(frozen=True, slots=True)
class LinkingContext:
    """The components that linking uses.

    ``transport``  sends the requests to other systems; None: the network
    ``deadline``   seconds until a request to another system fails, even if data still arrives
    """

    smart: SmartContext
    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20

    @property
    def json_client(self) -> JsonClient:
        return JsonClient(self.transport, self.deadline)

    @property
    def redirect_uri(self) -> str:
        """The redirect URI of this server as a client. Other systems must have it in this client's registration."""
        return f"{self.smart.origin}/links/callback"
