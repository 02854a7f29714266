"""What staff may give an app: decided by the institution, before the record is chosen and again when the app is answered."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fhir_server.smart.authorize.requests import SignedInRequest
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.core.context import SmartContext


@dataclass(frozen=True, slots=True)
class Admission:
    """What the institution allows of a request.

    ``request``      with the scopes that the person may give
    ``is_admitted``  False if the app gets nothing of this person
    ``approval``     the key of the approval for staff; "" if there is none, or the person is not staff
    ``is_asked``     whether the person decides on a page
    ``is_staff``     whether the person is staff
    """

    request: SignedInRequest
    is_admitted: bool = True
    approval: str = ""
    is_asked: bool = True
    is_staff: bool = False


async def admit(smart: SmartContext, request: SignedInRequest) -> Admission:
    """Decide by the account's role, the institution's approvals and the setting for apps without one."""
    authorization, user = request.authorization, request.session.user
    if not staff_apps.is_staff(user):
        return Admission(request)
    client = await clients.find(smart.store, authorization.client_id)
    approval = await staff_apps.find(smart.store, client, smart.now()) if client else None
    if approval is not None:
        scope, is_asked = approval.narrowed(authorization.scope), "consent" in authorization.parameter("prompt").split()
        return Admission(_with_scope(request, scope), True, approval.key, is_asked, True)
    may_ask = client is not None and not client.registration_token_hash and smart.staff_apps == "ask"
    if may_ask or not staff_apps.needs_approval(authorization.scope):
        scope = " ".join(text for text in authorization.scope.split() if text != staff_apps.OFFLINE)
        return Admission(_with_scope(request, scope), is_staff=True)
    return Admission(request, is_admitted=False, is_staff=True)


def _with_scope(request: SignedInRequest, scope: str) -> SignedInRequest:
    return SignedInRequest(request.handle, msgspec.structs.replace(request.authorization, scope=scope), request.session)
