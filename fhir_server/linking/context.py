"""What every part of this room needs: :class:`LinkingContext`, and what it says when a link fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.outbound.json_client import JsonClient

NO_RESPONSE: Final = "The other health system cannot be reached at the moment. Try again later."
INVALID_RESPONSE: Final = "The other health system gave an answer that cannot be used. Try again later."
ENDED: Final = "The other health system does not accept this link any longer. Link the account again."


class LinkError(Exception):
    """Something a person can be told; the text is for her, and quotes nothing that another server sent."""


class UnreachableError(LinkError):
    """The other system gave no usable answer; the link may be as good as before."""


class LinkEndedError(LinkError):
    """The other system, or time, has ended the link; only linking again helps."""


class NotSharedError(LinkError):
    """The other system does not give out this kind of information over this link."""


@dataclass(frozen=True, slots=True)
class LinkingContext:
    """The room, wired.

    ``transport``  carries the calls to other systems; None: the network
    ``deadline``   seconds after which a call to another system is given up, however busily it answers
    """

    smart: SmartContext
    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20

    @property
    def json_client(self) -> JsonClient:
        return JsonClient(self.transport, self.deadline)

    @property
    def redirect_uri(self) -> str:
        """Where other systems send the person back; what they must have registered for us."""
        return f"{self.smart.origin}/links/callback"
