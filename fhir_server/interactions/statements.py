"""Whose statement a write is: the signed-in person's, a member of staff's, or the institution's.

A write by an app of a patient or proxy is that person's statement: it names nobody else, the policy says of which categories it may
be, and it is marked, so that every reader can tell it from what the institution says.  Staff sign with their own name.  Backends
write for the institution.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.consent.policy import ActorKind
from fhir_server.consent.security_labels import REPORTED_BY
from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import app_state
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.resources import elements
from fhir_server.resources.references import exact_target
from fhir_server.store import Row
from fhir_server.writing import authorship
from fhir_server.writing.authorship import Speaker
from fhir_server.writing.draft import Draft
from fhir_server.writing.meta import with_mark
from fhir_server.writing.report_provenance import report_provenance

_SELF: Final = frozenset({ActorKind.ADULT_SELF, ActorKind.MINOR_SELF})
_PROXIES: Final = frozenset(
    {ActorKind.CHILD_PROXY, ActorKind.TEEN_PROXY, ActorKind.EXPIRED_PROXY, ActorKind.ADULT_PROXY, ActorKind.REPRESENTATIVE}
)
_STAFF: Final = frozenset({ActorKind.CLINICIAN, ActorKind.BREAK_GLASS, ActorKind.BILLING_OFFICE})
# What staff may change of what a person reported: what became of it, not what the person said.
_ABOUT_A_REPORT: Final = frozenset({"status", "statusReason", "clinicalStatus", "verificationStatus", "received"})


def is_persons_statement(permissions: Permissions) -> bool:
    """Whether what this caller writes is the statement of a patient or proxy."""
    return permissions.actor is not None and permissions.actor.kind in _SELF | _PROXIES


def as_stated(permissions: Permissions, draft: Draft, codes: SensitivityCodes) -> Draft:
    """The draft as this caller's statement; of callers other than patients and proxies, the draft itself.

    Reads no stored data.  Raises Problem ``forbidden`` that names each element in which the draft speaks for anybody else, or
    its category if the policy does not let the person report it.
    """
    if not is_persons_statement(permissions):
        return draft
    _require_reportable(permissions, draft, codes)
    speaker = _speaker(permissions)
    if app_state.covers_app_state(permissions, draft.type):
        authorship.require_stated_by(draft, speaker)
        return draft
    return authorship.as_stated_by(draft, speaker)


def marked(permissions: Permissions, draft: Draft) -> Draft:
    """The draft with the mark of a person's report: a tag that every reader sees, and the app as its source."""
    if not is_persons_statement(permissions) or app_state.covers_app_state(permissions, draft.type):
        return draft
    code = "proxy-reported" if _speaker(permissions).patient else "patient-reported"
    return with_mark(draft, (REPORTED_BY, code), f"urn:smart-app:{quote(permissions.principal.client_id)}")


async def require_may_change(context: WriteContext, draft: Draft, current: VisibleVersion | None) -> None:
    """Require that the caller may say what the draft says in place of the ``current`` version, as the caller sees it (None: it is new).

    A person changes what that person reported.  Staff sign with their own name, and change nothing that a person said.  Hidden
    parts of the current version do not count, so that a refusal says nothing about them.  Raises Problem ``forbidden``.
    """
    permissions = context.view.permissions
    if permissions.actor is None or permissions.actor.kind not in _SELF | _PROXIES | _STAFF:
        return
    present: dict[str, Any] = jsontext.parse(current.body) if current is not None and current.body else {}
    if is_persons_statement(permissions):
        if present and not app_state.covers_app_state(permissions, draft.type) and not _is_own_report(permissions, present):
            raise Problem("forbidden", "Only the person who reported this resource may change it.")
    else:
        speaker = _speaker(permissions)
        authorship.require_signed_by(draft, speaker, await _roles(context, draft, speaker), present)
        if current is not None and _is_report(present):
            changed = set(authorship.changed_members(draft, jsontext.members(current.body))) - _ABOUT_A_REPORT
            issues = tuple(
                Issue(
                    "forbidden", f"{draft.type}.{name} is what a person reported, which nobody else may change.", (f"{draft.type}.{name}",)
                )
                for name in sorted(changed)
            )
            if issues:
                raise Problem("forbidden", issues[0].text, issues)


async def record_provenance(context: WriteContext, row: Row, service: Service) -> None:
    """Write the Provenance of a person's report, in the transaction that writes the report."""
    permissions = context.view.permissions
    if not is_persons_statement(permissions) or app_state.covers_app_state(permissions, row.type):
        return
    speaker = _speaker(permissions)
    draft = report_provenance(
        f"{row.type}/{row.id}",
        created=row.interaction == "create",
        speaker=speaker.reference,
        patient=speaker.patient,
        client_id=permissions.principal.client_id,
        now=context.view.now,
    )
    await context.writer.write(draft, service.new_id(), takes_labels=True, previous=None)


def _speaker(permissions: Permissions) -> Speaker:
    """The caller as the record knows that caller."""
    principal, actor = permissions.principal, permissions.actor
    own = principal.fhir_user if principal.fhir_user in permissions.names else min(permissions.names, default="")
    is_proxy = actor is not None and actor.kind in _PROXIES
    patient = f"Patient/{permissions.patient_context}" if is_proxy else ""
    return Speaker(permissions.names, own or "", patient, principal.person.name if principal.person else "")


async def _roles(context: WriteContext, draft: Draft, speaker: Speaker) -> frozenset[str]:
    """The PractitionerRoles to which the draft refers and that are roles of this Practitioner."""
    own = set()
    for reference in draft.references:
        target = exact_target(reference)
        if target is not None and target[0] == "PractitionerRole":
            row = await context.tx.read_unfiltered(*target)
            role = jsontext.parse(row.body) if row is not None and row.body else {}
            if role.get("practitioner", {}).get("reference") in speaker.names:
                own.add(reference)
    return frozenset(own)


def _is_report(resource: dict[str, Any]) -> bool:
    return any(tag.get("system") == REPORTED_BY for tag in resource.get("meta", {}).get("tag", ()))


def _is_own_report(permissions: Permissions, resource: dict[str, Any]) -> bool:
    """Whether the caller reported this: it is marked, and all who speak in it are the caller."""
    speaker = _speaker(permissions)
    return _is_report(resource) and authorship.is_stated_by(resource, speaker)


def _require_reportable(permissions: Permissions, draft: Draft, codes: SensitivityCodes) -> None:
    """Require that the policy lets the person report a resource of these categories.  Raises Problem ``forbidden``.

    A type that is limited to categories is never a result of a laboratory, whatever category the draft gives itself.
    """
    allowed = permissions.reportable_categories(draft.type)
    if allowed is None:
        return
    found = {str(coding.get("code", "")) for coding in _codings(draft.value, "category")}
    if not found or not found <= allowed:
        text = f"A person may report {draft.type} with these categories only: {', '.join(sorted(allowed))}."
        raise Problem("forbidden", text, (Issue("forbidden", text, (f"{draft.type}.category",)),))
    measured = [*_codings(draft.value, "code"), *_codings(draft.value, "component.code")]
    if "specimen" in draft.value or any(codes.is_laboratory(str(each.get("system", "")), str(each.get("code", ""))) for each in measured):
        text = "A person cannot report the result of a laboratory."
        raise Problem("forbidden", text, (Issue("forbidden", text, (f"{draft.type}.code",)),))


def _codings(resource: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The codings of the concepts at an element path; an empty one for a concept without."""
    return [coding for _, concept in elements.at(resource, path) for coding in concept.get("coding") or [{}]]
