"""``$validate`` (http://hl7.org/fhir/R4/resource-operations.html#validate): what a write would say of a resource, without storing it.

The answer is 200 with an OperationOutcome, also for a resource that is not valid.  The validator is the one of the writes.
References count as resolved if the caller sees their targets.  Any scope on the type is enough: the answer holds nothing that the
caller did not send, except for the stored version, which needs a read scope.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import meta_rights, preconditions, statements, write_rights
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.resources.references import parse_reference
from fhir_server.smart.core.scopes import INTERACTIONS
from fhir_server.writing.draft import Draft
from fhir_server.writing.references import found_references

_MODES = ("create", "update", "delete", "profile")
_PARAMETERS = ("resource", "mode", "profile")


class _Question(NamedTuple):
    """What a request asks: the JSON text of the resource (None: the stored one), the mode and the profile, or "" for none."""

    resource: bytes | None
    mode: str = ""
    profile: str = ""


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope on this type, for whatever interaction.  Raises Problem ``forbidden``."""
    if not any(permissions.scopes(type, interaction) for interaction in INTERACTIONS):
        raise Problem("forbidden", f"The scopes of this access token do not cover {type}.")


async def validate(request: Request, service: Service, audit: AuditContext) -> Response:
    """``POST Type/$validate`` and ``POST Type/id/$validate``.

    Raises Problem ``invalid`` for Parameters that ask nothing, ``media_type``, ``forbidden``, ``too_large`` or ``too_costly``.
    """
    request.require_json()
    preconditions.require_only(request)
    question = _question(request)
    issues: list[Issue] = []
    draft, text = None, question.resource
    if text is None and question.mode != "delete":
        text = (await service.read_with_view(request, audit, lambda view: view.read(*request.path[:2]))).body
    if text is not None:
        try:
            draft = await service.parser.draft(text, request.path[0], base=service.base)
        except Problem as problem:
            if problem.kind != "invalid":
                raise
            issues += problem.issues
    found = await service.read_with_view(request, audit, lambda view: _found(view, request, service, question, draft))
    if draft is not None:
        issues += await service.profiles.issues(draft.type, draft.value, question.profile)
    issues += found
    if not any(issue.severity in ("error", "fatal") for issue in issues):
        issues.append(Issue("informational", "No errors were found.", severity="information"))
    return Response(200, outcome(tuple(issues)), ((b"content-type", JSON),))


async def _found(view: View, request: Request, service: Service, question: _Question, draft: Draft | None) -> list[Issue]:
    """The issues that depend on the caller and on what the caller sees."""
    type, id = request.path[0], request.path[1] if len(request.path) == 3 else ""
    admit(view.permissions, type)
    issues: list[Issue] = []
    current = None
    if id or (question.mode == "update" and draft is not None and draft.id):
        current = await view.read_for_write(type, id or str(draft.id if draft else ""), "ruds")
        if current is None and not (question.mode == "update" and view.permissions.may_write_labels):
            issues.append(Issue("not-found", f"{type}/{id or (draft.id if draft else '')} is not known."))
    if question.mode == "delete":
        issues += _refusal(lambda: write_rights.require_may_delete(view.permissions, type, request))
    if draft is None:
        return issues
    if id and draft.id != id:
        issues.append(Issue("value", "The resource's id differs from the id in the URL.", (f"{type}.id",)))
    if question.mode in ("create", "update"):
        issues += _refusal(lambda: _require_may_write(view, draft, question.mode, current, service))
    return issues + await _unresolved(view, draft, service)


def _require_may_write(view: View, draft: Draft, mode: str, current: VisibleVersion | None, service: Service) -> None:
    write_rights.require_writable(view, draft, "c" if mode == "create" else "u")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    meta_rights.require_may_send(view.permissions, draft, current)


def _refusal(check: Any) -> tuple[Issue, ...]:
    """The issues of a check that raises a Problem; none if it does not."""
    try:
        check()
    except Problem as problem:
        return problem.issues
    return ()


async def _unresolved(view: View, draft: Draft, service: Service) -> list[Issue]:
    """One issue for each reference to this server whose target the caller does not see."""
    missing = await write_rights.unresolved(view, draft.local_targets(service.base))
    places: dict[str, list[str]] = {}
    for found in found_references(draft.value, draft.type) if missing else ():
        reference = parse_reference(found.text)
        name = f"{reference.type}/{reference.id}" if reference is not None else ""
        places.setdefault(name, []).append(found.place)
    return [Issue("not-found", f"The reference {name} does not resolve.", tuple(places.get(name, ()))) for name in sorted(missing)]


def _question(request: Request) -> _Question:
    """What the body asks.  Raises Problem ``invalid`` for Parameters that R4 does not define for the operation."""
    if not request.body:
        raise Problem("invalid", "The operation needs a resource, or Parameters.")
    in_url = [pair for pair in request.query if pair[0] not in ("_format", "_pretty")]
    try:
        members = jsontext.members(request.body)
        is_parameters = jsontext.parse(members.get("resourceType", b"null")) == "Parameters"
        given = [jsontext.members(text) for text in jsontext.items(members.get("parameter", b"[]"))] if is_parameters else []
        names = [jsontext.parse(parameter.get("name", b"null")) for parameter in given]
    except (msgspec.DecodeError, Problem):
        is_parameters, given, names = False, [], []  # the parser says what is wrong
    resource: bytes | None = request.body
    texts = dict(in_url)
    sent = [name for name, _ in in_url]
    if is_parameters and (request.path[0] != "Parameters" or "resource" in names):
        parameters = dict(zip(map(str, names), given, strict=True))
        resource = parameters.get("resource", {}).get("resource")
        texts |= {name: _text(parameter) for name, parameter in parameters.items() if name != "resource"}
        sent += map(str, names)
        if resource is None and ("resource" in names or len(request.path) != 3):
            raise Problem("invalid", "The parameter resource is missing, or has no resource.")
    if len(set(sent)) < len(sent) or not set(sent) <= set(_PARAMETERS):
        raise Problem("invalid", f"The operation takes the parameters {', '.join(_PARAMETERS)}, each once.")
    if texts.get("mode", "create") not in _MODES or texts.get("profile", "x") == "" or "resource" in texts:
        raise Problem("invalid", f"mode is one of {', '.join(_MODES)}; profile is a URL.")
    return _Question(resource, texts.get("mode", ""), texts.get("profile", ""))


def _text(parameter: dict[str, bytes]) -> str:
    """The value of a parameter that is a code, uri, canonical or string; "" for none."""
    values = [jsontext.parse(text) for name, text in parameter.items() if name.startswith("value")]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else ""
