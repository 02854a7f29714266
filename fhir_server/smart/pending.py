"""Authorization requests on their way through the pages, behind a random handle."""

from __future__ import annotations

import msgspec

from fhir_server.smart.core import REQUEST_LIFE, Smart, digest, new_secret
from fhir_server.smart.people import RecordChoice
from fhir_server.smart.scopes import resource_scopes
from fhir_server.smart.sessions import Session

_KIND = "request"


class Pending(msgspec.Struct, frozen=True):
    """A checked authorization request, and what has been decided of it: by whom, for which record.

    ``pairs`` are its parameters as received, ``scope`` what the client may have of the scopes asked.
    """

    pairs: tuple[tuple[str, str], ...]
    client_id: str
    redirect_uri: str
    scope: str
    created: int
    username: str | None = None
    patient: str | None = None

    def parameter(self, name: str) -> str:
        return dict(self.pairs).get(name, "")

    @property
    def needs_record(self) -> bool:
        """Whether a patient must be in context, and is not given by a launch handle."""
        patient_level = any(scope.level == "patient" for scope in resource_scopes(self.scope))
        return (patient_level or "launch/patient" in self.scope.split()) and not self.parameter("launch")

    def signed_in_enough(self, session: Session) -> bool:
        """Whether this sign-in will do: the app may insist on one made for its request (OpenID Connect 3.1.2.1)."""
        fresh = "login" in self.parameter("prompt").split() or bool(self.parameter("max_age"))
        return session.started >= self.created if fresh else True

    def chosen(self, session: Session) -> bool:
        """Whether the person now signed in has settled for whose record this is."""
        return not self.needs_record or (self.patient is not None and self.username == session.user.username)


async def keep(smart: Smart, pending: Pending) -> str:
    """A handle for this request."""
    handle = new_secret()
    await _put(smart, handle, pending)
    return handle


async def find(smart: Smart, handle: str) -> Pending | None:
    text = await smart.store.secrets.peek(_KIND, digest(handle), smart.now())
    return None if text is None else msgspec.json.decode(text, type=Pending)


async def take(smart: Smart, handle: str) -> bool:
    """End this request; True for the one caller that does."""
    return await smart.store.secrets.take(_KIND, digest(handle), smart.now()) is not None


async def choose(smart: Smart, handle: str, pending: Pending, session: Session, patient: str) -> None:
    """Note that this person wants this record opened."""
    await _put(smart, handle, msgspec.structs.replace(pending, username=session.user.username, patient=patient))


async def choices(smart: Smart, session: Session) -> dict[str, RecordChoice]:
    """The records this person may open now, by patient id."""
    return {choice.patient: choice for choice in await smart.records(session.user.person(), smart.now())}


async def _put(smart: Smart, handle: str, pending: Pending) -> None:
    expires = pending.created + REQUEST_LIFE
    await smart.store.secrets.replace(_KIND, digest(handle), msgspec.json.encode(pending), expires)
