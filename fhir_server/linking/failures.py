"""The sentences for what another system did not give: each says what happened, and that the list is missing rather than empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fhir_server.linking.context import BusyError, UnreachableError, try_again
from fhir_server.smart.outbound.json_client import JsonResponse

_UNKNOWN: Final = "Whether there are any is not known."
_SENTENCES: Final[Mapping[str, str]] = {
    "question": "The other health system could not answer our question about {what} (error {status}).",
    "sign-in": "The other health system did not accept our access to {what} (error {status}).",
    "forbidden": "The other health system does not let us see {what} (error {status}).",
    "absent": "The other health system does not offer {what} to other systems (error {status}).",
    "format": "The other health system cannot send {what} in a form that we can read (error {status}).",
    "moved": "The other health system told us to ask for {what} at another address. We do not follow that.",
    "fault": "The other health system had a problem of its own when we asked for {what} (error {status}). Try again later.",
    "other": "The other health system answered our question about {what} in a way that we do not understand (status {status}).",
    "not-json": "The other health system sent {what} in a form that we cannot read.",
    "not-a-list": "The other health system answered our question about {what}, but did not send a list.",
    "unreachable": "The other health system could not be reached when we asked for {what}. Try again later.",
    "not-yet": "The other health system has not answered our question about {what} yet.",
    "not-granted": "This link does not include {what}: no such access was given at the other health system.",
    "slow": "The other health system did not answer our question about {what} in time. Try again later.",
    "unusable": "The other health system sent {what} in a form that we do not accept: too much at once, or compressed.",
    "asked-to-wait": "The other health system asked us to wait before we ask for {what}.",
    "limited": "We already ask the other health system as often as we may, so we did not ask for {what}.",
}
_STATUSES: Final = {
    400: "question", 401: "sign-in", 403: "forbidden", 404: "absent", 405: "absent", 406: "format", 410: "absent", 415: "format",
    422: "question", 501: "absent",
}  # fmt: skip
EMPTY: Final = "The other health system sent an empty list of {what}. There may be some that it does not share."
OTHER_PATIENT: Final = "The other health system also sent entries about another patient. They are not shown."
NO_PATIENT: Final = "The other health system also sent entries that do not say whose they are. They are not shown."
WITHDRAWN: Final = "Entries that the other health system has withdrawn as entered in error are not shown."
UNREADABLE: Final = "The other health system also sent entries that we cannot read. They are not shown."
WARNED: Final = "The other health system says that something may be missing from this list."
OLDER: Final = "These are the newest {what}. Older ones are on the other health system's website."
STOPPED: Final = (
    "This list of {what} is incomplete, and newer ones may be missing: we stopped before its end. "
    "See the other health system's website for all of them."
)
ELSEWHERE: Final = (
    "This list of {what} is incomplete, and newer ones may be missing: it continues at another address, which we do not follow. "
    "See the other health system's website for all of them."
)
BROKEN_OFF: Final = (
    "This list of {what} is incomplete, and newer ones may be missing: the other health system did not send the rest. "
    "See its website for all of them."
)
COMING: Final = "This list of {what} is incomplete, and newer ones may be missing: the other health system has not sent the rest yet."
PART: Final = "At the other health system, access was given to only some of the {what}. There may be more."
FEWER: Final = "The other health system counts more {what} than it sent. See its website for all of them."


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a list is missing: a kind of this module, the HTTP status if there was one, and the wait in microseconds if one was named."""

    kind: str
    status: int = 0
    wait: int = 0

    @classmethod
    def of(cls, problem: UnreachableError) -> Failure:
        """Return the failure of a call to which nothing usable came."""
        return cls(problem.kind, wait=problem.wait if isinstance(problem, BusyError) else 0)

    def of_list(self, what: str) -> str:
        """Say that a list is missing, and why."""
        return f"{self._reason(what)} {_UNKNOWN}{self._then()}"

    def of_record(self) -> str:
        """Say that everything is missing, and why."""
        return f"{self._reason('the information in this record')}{self._then()}"

    def _reason(self, what: str) -> str:
        return _SENTENCES[self.kind].format(what=what, status=self.status)

    def _then(self) -> str:
        return f" {try_again(self.wait)}" if self.kind in ("asked-to-wait", "limited") else ""


def failure_of(response: JsonResponse) -> Failure | None:
    """Return why a response to a search is none; None for a usable one."""
    status = response.status
    if status == 200:
        if response.body.get("resourceType") == "Bundle":
            return None
        return Failure("not-a-list" if response.body else "not-json", status)
    if 300 <= status < 400:
        return Failure("moved", status)
    return Failure(_STATUSES.get(status) or ("fault" if status >= 500 else "other"), status)
