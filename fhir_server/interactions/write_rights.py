"""Whether a caller may write: by scopes and policy, by the resource as sent, by the references in it."""

from __future__ import annotations

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Problem
from fhir_server.interactions import app_state
from fhir_server.interactions.messages import Request
from fhir_server.interactions.subscription_records import TYPE as SUBSCRIPTION
from fhir_server.resources.references import versioned_target
from fhir_server.smart.core.scopes import ScopeInteraction
from fhir_server.writing.draft import Draft
from fhir_server.writing.references import references


def admit_create(permissions: Permissions, type: str) -> None:
    """Require that the caller may create resources of this type.  Raises Problem ``forbidden`` or ``invalid``."""
    _require_row(type)
    _require_may_write(permissions, type, "c")


def admit_update(permissions: Permissions, type: str) -> None:
    """Require that the caller may update resources of this type.  Raises Problem ``forbidden`` or ``invalid``."""
    _require_row(type)
    _require_may_write(permissions, type, "u")


def admit_conditional_update(permissions: Permissions, type: str) -> None:
    """Require that the caller may update resources of this type, and search for them.  Raises Problem ``forbidden`` or ``invalid``."""
    _require_row(type)
    _require_may_write(permissions, type, "u")
    permissions.require(type, "s")


def require_may_delete(permissions: Permissions, type: str, request: Request) -> None:
    """Require that the caller may delete resources of this type.  Raises Problem ``forbidden`` or ``precondition_required``."""
    _require_row(type)
    permissions.require(type, "d")
    if not permissions.may_write_labels and not (app_state.covers_app_state(permissions, type) and permissions.may_write(type, "d")):
        raise Problem("forbidden", f"This caller may not delete {type}.")
    app_state.require_condition(permissions, type, request)


def _require_row(type: str) -> None:
    if type == SUBSCRIPTION:
        raise Problem(
            "invalid", "A Subscription is written by POST, PUT and DELETE of its own URL alone, not in a Bundle and not from a file."
        )


def _require_may_write(permissions: Permissions, type: str, interaction: ScopeInteraction) -> None:
    permissions.require(type, interaction)
    if not permissions.may_write_labels and (
        not permissions.may_write(type, interaction) or (interaction == "u" and permissions.principal.client_kind == "backend")
    ):
        raise Problem("forbidden", f"This caller may not write {type}.")


def require_writable(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Require that scopes, policy and the draft's own content allow the write; ``interaction`` is ``c`` or ``u``.

    Reads no stored data.  Raises Problem ``forbidden``, ``too_large`` or ``unprocessable``.
    """
    _require_may_write(view.permissions, draft.type, interaction)
    require_covered(view, draft, interaction)
    app_state.check(view.permissions, draft)


def require_covered(view: View, draft: Draft, interaction: ScopeInteraction) -> None:
    """Require that a scope covers the resource as sent, by its patient and its content.  Raises Problem ``forbidden``."""
    if not view.permissions.covers_resource(interaction, draft.type, draft.value):
        raise Problem("forbidden", "The resource's subject is not a patient whose record this access token opens, or no scope covers it.")


async def require_visible(view: View, targets: frozenset[str]) -> None:
    """Require that the caller can see these references' targets.

    Raises Problem ``unprocessable``, with the same text for hidden and absent targets.
    """
    if missing := await unresolved(view, targets):
        raise Problem("unprocessable", f"The reference {min(missing)} does not resolve.")


async def unresolved(view: View, targets: frozenset[str]) -> frozenset[str]:
    """Those of these ``Type/id`` that the caller cannot see.

    A token without read scopes can write into its own patient's record, and in the name of its own person, which the server itself
    puts into what the person says.
    """
    permissions = view.permissions
    wanted = targets - {f"Patient/{patient}" for patient in permissions.patients or ()} - permissions.names
    return wanted - await view.visible_targets(wanted) if wanted else wanted


def present_targets(visible: VisibleVersion | None) -> frozenset[str]:
    """The targets that the current version has, as the caller sees it: an update may keep a reference to a deleted resource."""
    texts = references(visible.body) if visible else ()
    return frozenset("/".join(target) for target in map(versioned_target, texts) if target)
