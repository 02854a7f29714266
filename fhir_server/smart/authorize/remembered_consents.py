"""What a person has allowed an app, remembered so that the app can ask again without the person (``prompt=none``).

A remembered consent says no more than its grant, whose token family it belongs to: it ends when the person ends the app's access,
and it lasts as long as the consent page said.  It is void if the app has changed since, or the account.  It is kept for the record
that the person chose, and only where the person chooses among few records: never for staff in a record, nor for a launch.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fhir_server.smart.accounts.sessions import Session
from fhir_server.smart.authorize import open_apps, requests
from fhir_server.smart.authorize.requests import AuthorizationRequest
from fhir_server.smart.clients import clients
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core import grant_index
from fhir_server.smart.core.context import GRANT_LIFE, REFRESH_LIFE, SECOND, SESSION_LIFE, SmartContext, digest
from fhir_server.smart.core.logout_queue import session_id
from fhir_server.smart.core.persons import own_reference
from fhir_server.smart.core.scopes import narrow_scopes
from fhir_server.smart.core.token_grants import TokenGrant
from fhir_server.smart.tokens.grants import Decision

_KIND: Final = "remembered-consent"
_OFFLINE: Final = "offline_access"
_ONLINE: Final = "online_access"


class _Remembered(msgspec.Struct, frozen=True):
    """``asked`` are the scopes that the app asked for, ``app`` and ``host`` what the person saw of it, ``session`` where it ends."""

    asked: str
    grant: TokenGrant
    app: str
    host: str
    session: str


async def remember(smart: SmartContext, client: Client, authorization: AuthorizationRequest, session: Session, grant: TokenGrant) -> None:
    """Remember an "allow", in place of what was remembered for this person, app and record."""
    now = smart.now()
    if authorization.parameter("launch") or (grant.patient and session.user.role != "patient"):
        return
    is_offline, lasting = _OFFLINE in grant.scope.split(), {_OFFLINE, _ONLINE}
    if lasting & set(authorization.scope.split()) and not lasting & set(grant.scope.split()):
        await smart.store.key_values.pop(_KIND, _key(client, session, grant.patient), now)  # the person wants access to end
        return
    ends = now + REFRESH_LIFE if is_offline else session.started + SESSION_LIFE
    kept = _Remembered(
        authorization.scope,
        msgspec.structs.replace(grant, issued=now, expires=ends, since=grant.since or now),
        metadata_digest(client),
        client.redirect_host(authorization.redirect_uri),
        "" if is_offline else session.key,
    )
    await grant_index.put_remembered(smart.store, _listed(kept))
    await smart.store.key_values.put(_KIND, _key(client, session, grant.patient), msgspec.json.encode(kept), ends, grant.family)


async def find_decision(smart: SmartContext, authorization: AuthorizationRequest, session: Session, approval: str = "") -> Decision | str:
    """The decision that the person's remembered consent gives for this request, or the error for the app (OpenID Connect Core 3.1.2.6).

    ``approval`` is what the grant of a member of staff must be under ("" for none).
    """
    client = await clients.find(smart.store, authorization.client_id)
    if client is None or authorization.parameter("launch"):
        return "interaction_required"
    if authorization.needs_record(session) and session.user.role != "patient":
        return "interaction_required"
    choices = await requests.choices(smart, session) if authorization.needs_record(session) else {}
    found = [await _find(smart, client, session, patient) for patient in choices or (None,)]
    valid = [kept for kept in found if kept is not None and _covers(smart, kept, client, authorization, session, approval)]
    if len(valid) != 1:
        return "interaction_required" if valid else "consent_required"  # several: which record is the person's choice
    kept = valid[0]
    choice = choices.get(kept.grant.patient or "")
    grant = await _renewed(smart, kept.grant, client, authorization, session, choice.fhir_user if choice else "")
    if grant is None:
        return "interaction_required"
    if not kept.session:  # as with a refresh token, every use starts a new period
        await _extend(smart, client, session, kept)
    await open_apps.remember(smart, session, kept.grant)
    return Decision(grant, grant.auth_time, "", session.key)


async def _extend(smart: SmartContext, client: Client, session: Session, kept: _Remembered) -> None:
    key, text, ends = _key(client, session, kept.grant.patient), msgspec.json.encode(kept), smart.now() + REFRESH_LIFE
    longer = msgspec.structs.replace(kept, grant=msgspec.structs.replace(kept.grant, expires=ends))
    await grant_index.extend_remembered(smart.store, _listed(longer), smart.now())
    await smart.store.key_values.replace_value(_KIND, key, text, msgspec.json.encode(longer), ends)


def _listed(kept: _Remembered) -> TokenGrant:
    """What is listed among the person's grants: it is over when the remembered consent is."""
    return msgspec.structs.replace(kept.grant, session=kept.session)


async def still_stands(smart: SmartContext, grant: TokenGrant, session: Session) -> bool:
    """Whether the consent that a new code came from has not ended in the meantime.  If it has, the code ends too."""
    client = await clients.find(smart.store, grant.client_id)
    kept = await _find(smart, client, session, grant.patient) if client else None
    if kept is not None and kept.grant.family == grant.family:
        return True
    await smart.store.key_values.delete_family(grant.family)
    return False


def metadata_digest(client: Client) -> str:
    """A digest of what a person can see or know of an app, and of where its responses go."""
    shown: Any = (client.name, client.kind, client.redirect_uris, client.homepage, client.publisher, client.metadata)
    return digest(msgspec.json.encode(shown, order="deterministic").decode())


def _covers(
    smart: SmartContext, kept: _Remembered, client: Client, authorization: AuthorizationRequest, session: Session, approval: str
) -> bool:
    asked = dict.fromkeys(authorization.scope.split())
    return (
        narrow_scopes(authorization.scope, kept.asked, client.levels) == tuple(asked)
        and kept.app == metadata_digest(client)
        and kept.host == client.redirect_host(authorization.redirect_uri)
        and client.is_as_allowed(kept.grant.app, kept.grant.since)
        and kept.grant.approval == approval
        and kept.session in ("", session.key)
        and session.user.backs(kept.grant)
        and smart.now() < kept.grant.since + GRANT_LIFE
    )


async def _renewed(
    smart: SmartContext, grant: TokenGrant, client: Client, authorization: AuthorizationRequest, session: Session, fhir_user: str
) -> TokenGrant | None:
    """The grant for this request: of what was granted, what is asked for and still has an effect.  None if nothing is left of it."""
    person, now = session.user.person(), smart.now()
    allowed = " ".join(narrow_scopes(grant.scope, authorization.scope, client.levels))
    effective = await smart.effective_scopes(person, grant.patient, allowed, now)
    if effective and not any(effective.values()):
        return None
    names = [name for text in allowed.split() for name in effective.get(text, (text,))]
    encounter = grant.encounter
    if encounter and grant.patient:
        visible = await smart.encounters(person, grant.patient, frozenset(grant.withheld), now)
        encounter = encounter if any(choice.encounter == encounter for choice in visible) else None
    return msgspec.structs.replace(
        grant,
        scope=" ".join(name for name in dict.fromkeys(names) if encounter or name != "launch/encounter"),
        encounter=encounter,
        fhir_user=fhir_user or own_reference(person),
        auth_time=session.authenticated // SECOND,
        amr=session.amr,
        sid=session_id(session.key, client.client_id),
    )


async def _find(smart: SmartContext, client: Client, session: Session, patient: str | None) -> _Remembered | None:
    text = await smart.store.key_values.get(_KIND, _key(client, session, patient), smart.now())
    return None if text is None else msgspec.json.decode(text, type=_Remembered)


def _key(client: Client, session: Session, patient: str | None) -> str:
    return digest(f"{client.client_id} {session.user.subject} {patient or ''}")
