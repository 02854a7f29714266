"""Apps that the institution has approved for its staff: clinicians, billing and privacy offices.

Staff accounts open many records, so the institution decides which apps may act for them, not each member of staff.  An approval
is for the app as it was then: one that changes its name or where it sends people is not approved any longer.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_server.smart.accounts.users import User
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.registry import Register
from fhir_server.smart.core.scopes import NAMED_SCOPES, narrow_scopes
from fhir_server.store import Store

OFFLINE: Final = "offline_access"
_IDENTITY: Final = frozenset({"openid", "fhirUser", "profile", "online_access"})


class StaffApproval(msgspec.Struct, frozen=True):
    """One approval.

    ``app``       digest of what the app was then
    ``scopes``    the most that staff may give it; "" for all that it is registered for
    ``until``     when the approval ends, in microseconds; 0 for no end
    ``offline``   whether it may keep access while the person is away
    ``approved``  when it was approved, in microseconds
    """

    client_id: str
    app: str
    scopes: str
    until: int
    offline: bool
    approved: int

    @property
    def key(self) -> str:
        """What grants under this approval hold: they end when it is changed or ends."""
        return digest(msgspec.json.encode(self).decode())

    def narrowed(self, scope: str) -> str:
        """The part of the requested scopes that staff may give."""
        most = f"{self.scopes} {' '.join(NAMED_SCOPES)}" if self.scopes else scope
        granted = narrow_scopes(scope, most, frozenset({"patient", "user"}))
        return " ".join(text for text in granted if text != OFFLINE or self.offline)


_approvals = Register("staff-app", StaffApproval)


def is_staff(user: User) -> bool:
    """Whether the account is one of the institution's staff."""
    return user.role != "patient"


def needs_approval(scope: str) -> bool:
    """Whether these scopes give more than who the person is."""
    return not set(scope.split()) <= _IDENTITY


async def approve(store: Store, client: Client, now: int, *, scopes: str = "", until: int = 0, offline: bool = False) -> StaffApproval:
    """Approve an app as it is now, in place of an earlier approval.  Raises ValueError, with a message for the operator."""
    if client.kind == "backend":
        raise ValueError("A backend acts for nobody, so it needs no approval for staff.")
    if until and until <= now:
        raise ValueError("The approval would have ended already.")
    if scopes and len(narrow_scopes(scopes, client.scopes, client.levels)) != len(scopes.split()):
        raise ValueError(f"{client.client_id} is not registered for all of these scopes.")
    approval = StaffApproval(client.client_id, _app(client), scopes, until, offline, now)
    await _approvals.save(store, client.client_id, approval)
    return approval


async def end(store: Store, client_id: str) -> bool:
    """End an approval, and with it all that staff gave the app under it.  False if there was none."""
    return await _approvals.remove(store, client_id)


async def find(store: Store, client: Client, now: int) -> StaffApproval | None:
    """The approval of this app, if it stands."""
    approval = await _approvals.find(store, client.client_id)
    if approval is None or approval.app != _app(client) or 0 < approval.until <= now:
        return None
    return approval


async def list_all(store: Store) -> tuple[StaffApproval, ...]:
    """All approvals, also those that do not stand any longer."""
    return await _approvals.list_all(store)


def _app(client: Client) -> str:
    return digest("\n".join((client.kind, client.name, client.launch_uri, client.homepage, *client.redirect_uris)))
