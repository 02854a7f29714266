"""``$meta``, ``$meta-add`` and ``$meta-delete`` of a resource (http://hl7.org/fhir/R4/resource-operations.html).

An update never removes a label, a tag or a profile; ``$meta-delete`` is the act that does.  The institution's feed may add and
remove any, a treating clinician the restraint codes.  A hidden resource answers like an absent one.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View, not_found
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.consent.security_labels import is_restraint
from fhir_server.errors import Problem
from fhir_server.interactions import preconditions, provenance_header
from fhir_server.interactions.messages import JSON, AuditContext, LabelChange, Request, Response, version_headers
from fhir_server.interactions.meta_rights import may_restrain
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import current_for_change
from fhir_server.packages import mark
from fhir_server.writing.meta import MERGED, merged_meta, meta_of, without_items

ADD: Final = "$meta-add"


async def meta(view: View, request: Request, service: Service) -> Response:
    """``GET Type/id/$meta``: the meta of the visible version.  Raises Problem ``not_found``, ``gone`` or ``forbidden``."""
    version = await view.read(*request.path[:2])
    return preconditions.answer(request, version, _body(version))


async def change_meta(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Type/id/$meta-add`` or ``$meta-delete``: writes a next version with more or fewer profiles, labels and tags.

    Raises Problem ``forbidden``, ``invalid``, ``unprocessable``, ``not_found`` or ``precondition``.
    """
    request.require_json()
    provenance_header.require_none(request)
    audit.just_admitted = False
    sent = _sent((await service.parser.draft(request.body, "Parameters")).value)
    mark.require_no_mark({"meta": sent})
    audit.labels = LabelChange(request.path[2] == ADD, tuple(_text(item) for name in MERGED for item in sent.get(name, ())))
    return await service.write_with_view(request, audit, lambda context: _change_in(context, request, service, sent))


async def _change_in(context: WriteContext, request: Request, service: Service, sent: dict[str, list[Any]]) -> Response:
    view = context.view
    _require_rights(view.permissions, request.path[0], sent)
    current = await current_for_change(context, request)
    if current.visible is None or current.stored is None:
        raise not_found(*request.path[:2])
    present = meta_of(jsontext.members(current.stored.body))
    added = {name: jsontext.dumps(items) for name, items in sent.items()}
    others = {name: text for name, text in present.items() if name not in MERGED}
    changed = others | merged_meta(added, present) if request.path[2] == ADD else without_items(present, sent)
    if changed == present:
        return _answer(current.visible)
    if request.path[2] == ADD and (claims := tuple(sent.get("profile", ()))):
        context.checks.need(request.path[0], jsontext.parse(current.visible.body), current.visible.body, claims)
    row = await context.writer.replace_meta(current.stored, changed)
    after = await service.view_in_transaction(view, context.tx)
    visible = await after.visible_after_write(row)
    return _answer(visible) if visible else Response(200)


def _sent(body: dict[str, Any]) -> dict[str, list[Any]]:
    """The profiles, labels and tags in the request's Parameters.  Raises Problem ``invalid`` or ``unprocessable``."""
    parameters = body.get("parameter", ())
    metas = [parameter["valueMeta"] for parameter in parameters if parameter["name"] == "meta" and "valueMeta" in parameter]
    if len(metas) != 1 or len(parameters) != 1:
        raise Problem("invalid", "The operation takes exactly one parameter: meta, with a valueMeta.")
    if others := sorted(metas[0].keys() - set(MERGED)):
        raise Problem("unprocessable", f"The operation changes profile, security and tag of meta, not {', '.join(others)}.")
    return dict(metas[0])


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to update this type.  Raises Problem ``forbidden``."""
    permissions.require(type, "u")


def _require_rights(permissions: Permissions, type: str, sent: dict[str, list[Any]]) -> None:
    """Require that the caller may change these labels; reads no stored data.  Raises Problem ``forbidden``."""
    admit(permissions, type)
    is_restraint_only = sent.keys() <= {"security"} and all(is_restraint(coding) for coding in sent.get("security", ()))
    if not permissions.may_write_labels and not (is_restraint_only and may_restrain(permissions, type)):
        raise Problem("forbidden", f"This caller may not change these labels of {type}.")


def _text(item: Any) -> str:
    return f"{item.get('system', '')}|{item.get('code', '')}" if isinstance(item, dict) else str(item)


def _answer(version: VisibleVersion) -> Response:
    """The meta of a version as the operation's result."""
    return Response(200, _body(version), ((b"content-type", JSON), *version_headers(version)))


def _body(version: VisibleVersion) -> bytes:
    text = jsontext.members(version.body)["meta"]
    return b'{"resourceType":"Parameters","parameter":[{"name":"return","valueMeta":%s}]}' % text
