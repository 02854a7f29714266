"""SMART App State: Basic resources in which an app stores its settings or state for a person.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-state.html.  ``meta.source`` of the stored resource identifies the app and
the person who wrote it.  Only this app sees the resource, for this person, and no app sees the element, so no app can claim
the state of another.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.app_state_owner import app_state_owner
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import not_found
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request
from fhir_server.store import Row
from fhir_server.writing.draft import Draft

MAX_STATE_BYTES: Final = 256 * 1024
_TYPE: Final = "Basic"


def covers_app_state(permissions: Permissions, type: str) -> bool:
    """Whether this caller's writes of ``type`` are app state: Basic resources that a person's app writes."""
    return type == _TYPE and permissions.principal.person is not None and not permissions.may_write_labels


def owner(permissions: Permissions, type: str) -> str:
    """The ``meta.source`` of this caller's app state, or "" for resources that are not app state."""
    return app_state_owner(permissions.principal) if covers_app_state(permissions, type) else ""


def check(permissions: Permissions, draft: Draft) -> None:
    """Check app state against its profile.  Raises Problem ``too_large`` or ``unprocessable``."""
    if not covers_app_state(permissions, draft.type):
        return
    if sum(map(len, draft.parts.values())) > MAX_STATE_BYTES:
        raise Problem("too_large", "App state is at most 256 KB.")
    codings = draft.value["code"].get("coding", ())
    if len(codings) != 1 or not {"system", "code"} <= codings[0].keys():
        raise Problem("unprocessable", "App state requires exactly one code.coding, with system and code.")
    if not all(_is_string_extension(extension) for extension in draft.value.get("extension", ())):
        raise Problem("unprocessable", "Extensions of app state require a valueString and no other value.")


def require_condition(permissions: Permissions, type: str, request: Request) -> None:
    """Require If-Match for changes of app state.  Raises Problem ``precondition_required``."""
    if covers_app_state(permissions, type) and "if-match" not in request.headers:
        raise Problem("precondition_required", "A change of app state requires If-Match.")


def require_own(permissions: Permissions, row: Row) -> None:
    """Require that app state was written by this app for this person.  Raises Problem ``not_found``."""
    if covers_app_state(permissions, row.type) and jsontext.parse(row.body).get("meta", {}).get("source") != owner(permissions, row.type):
        raise not_found(row.type, row.id)


def _is_string_extension(extension: dict[str, Any]) -> bool:
    return extension.keys() <= {"url", "valueString", "id"} and "valueString" in extension
