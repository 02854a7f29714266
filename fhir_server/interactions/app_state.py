"""What apps keep for themselves in a record: Basic resources under the rules of SMART App State.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-state.html.  A state belongs to the app and the person who wrote it, which
the row's ``meta.source`` says; that part is out of every app's sight, so nobody can claim another's.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import not_found
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request
from fhir_server.store import Row
from fhir_server.writing.draft import Draft

LARGEST: Final = 256 * 1024  # bytes
_TYPE: Final = "Basic"


def covers_app_state(permissions: Permissions, type: str) -> bool:
    """Whether a write of this type by this caller is one of app state: every Basic that somebody's app writes is."""
    return type == _TYPE and permissions.principal.person is not None and not permissions.may_write_labels


def owner(permissions: Permissions, type: str) -> str:
    """The ``meta.source`` of this caller's states; "" for what is no app state."""
    principal = permissions.principal
    if not covers_app_state(permissions, type):
        return ""
    return f"urn:smart-app-state:{sha256(msgspec.json.encode((principal.client_id, principal.username))).hexdigest()}"


def check(permissions: Permissions, draft: Draft) -> None:
    """Raises Problem ``too_large``, or ``unprocessable`` for a Basic that is not of the profile."""
    if not covers_app_state(permissions, draft.type):
        return
    if sum(map(len, draft.parts.values())) > LARGEST:
        raise Problem("too_large", "App state is at most 256 KB.")
    codings = draft.value["code"].get("coding", ())
    if len(codings) != 1 or not {"system", "code"} <= codings[0].keys():
        raise Problem("unprocessable", "App state has one code.coding, with system and code.")
    if not all(_plain(extension) for extension in draft.value.get("extension", ())):
        raise Problem("unprocessable", "App state has only extensions with a valueString.")


def require_condition(permissions: Permissions, type: str, request: Request) -> None:
    """App state is changed by whoever knows what it is now.  Raises Problem ``precondition_required``."""
    if covers_app_state(permissions, type) and "if-match" not in request.headers:
        raise Problem("precondition_required", "App state is changed with If-Match.")


def require_own(permissions: Permissions, row: Row) -> None:
    """Refuse to change a state that another app, or another person's, wrote.  Raises Problem ``not_found``."""
    if covers_app_state(permissions, row.type) and jsontext.parse(row.body).get("meta", {}).get("source") != owner(permissions, row.type):
        raise not_found(row.type, row.id)


def _plain(extension: dict[str, Any]) -> bool:
    return extension.keys() <= {"url", "valueString", "id"} and "valueString" in extension
