"""What all modules of linking share: :class:`LinkingContext`, the errors, and their messages."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import httpx

from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.context import MINUTE, SmartContext
from fhir_server.smart.outbound.json_client import JsonClient

NO_RESPONSE: Final = "The other health system cannot be reached at the moment. Try again later."
SLOW: Final = "The other health system did not answer in time. Try again later."
INVALID_RESPONSE: Final = "The other health system sent an invalid response. Try again later."
ENDED: Final = "The other health system no longer accepts this link. Link the account again."
NOT_YET: Final = "The other health system has not answered yet."
VIEW_SECONDS: Final = 25.0
FIRST_SECONDS: Final = 4.0
_log: Final = logging.getLogger("fhir_server.linking")


class LinkError(Exception):
    """A link failed. The message is for the page; it quotes nothing that another server sent.

    ``cause``  what happened, for the operator; nothing about a patient. "" if the person can see all of it
    """

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


class UnreachableError(LinkError):
    """The other system sent no usable response. The link may still work later.  ``kind`` is a key of ``failures.py``."""

    kind = "unreachable"


class SlowError(UnreachableError):
    """The other system did not respond in time."""

    kind = "slow"


class NotYetError(UnreachableError):
    """The other system has not responded yet, and the page is not to wait for it."""

    kind = "not-yet"

    def __init__(self) -> None:
        super().__init__(NOT_YET, "it had not answered when the page was sent")


class UnusableError(UnreachableError):
    """The other system's response is too large or compressed."""

    kind = "unusable"


class BusyError(UnreachableError):
    """The other system is not asked now.

    ``wait``   microseconds until it may be asked again; 0 if that is not known
    ``asked``  whether the other system asked to wait; else this server keeps to its own limit
    """

    def __init__(self, wait: int, *, asked: bool = False) -> None:
        reason = "The other health system asked us to wait." if asked else "We already ask the other health system as often as we may."
        super().__init__(f"{reason} {try_again(wait)}", "it asked to wait" if asked else "the limit of calls to it is reached")
        self.wait = wait
        self.kind = "asked-to-wait" if asked else "limited"


class LinkEndedError(LinkError):
    """The link has expired or the other system revoked it. The person must link the account again."""


def try_again(wait: int) -> str:
    """Return when to try again, for a wait in microseconds: ``Try again in about 2 minutes.``"""
    minutes = max(1, -(-wait // MINUTE))
    return f"Try again in about {minutes} minutes." if minutes > 1 else "Try again in about a minute."


def log_failure(organization: Organization, what: str, cause: str) -> None:
    """Write to the server's log what failed with an organization and why.  Neither may name a patient or quote a resource."""
    _log.warning("Organization %s: %s: %s.", organization.id, what, cause)


@dataclass(frozen=True, slots=True)
class LinkingContext:
    """The components that linking uses.

    ``transport``   sends the requests to other systems; None: the network
    ``deadline``    seconds until a request to another system fails, even if data still arrives
    ``first_seconds``  seconds after which the page of a link is sent with what has arrived, first for whose it is and then for the lists
    ``view_seconds``  seconds in which everything must have arrived if a person waits for the rest; what has not is said to be missing
    """

    smart: SmartContext
    transport: httpx.AsyncBaseTransport | None = None
    deadline: float = 20
    first_seconds: float = FIRST_SECONDS
    view_seconds: float = VIEW_SECONDS

    @property
    def json_client(self) -> JsonClient:
        return JsonClient(self.transport, self.deadline)

    def redirect_uri(self, organization: Organization) -> str:
        """This server's redirect URI for an organization, as it must stand in this client's registration there.

        Each organization has one of its own, so that a response cannot be taken for another's (RFC 9700 4.4.2). Organizations that
        were registered before share one until they are registered again.
        """
        own = f"/{organization.id}" if organization.own_redirect_uri else ""
        return f"{self.smart.origin}/links/callback{own}"
