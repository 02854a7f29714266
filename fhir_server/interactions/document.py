"""``Composition/[id]/$document`` and ``Composition/$document?id=`` (http://hl7.org/fhir/R4/composition-operation-document.html).

The document holds the Composition as the caller sees it, and the visible resources to which it refers.  A reference to what the caller
does not see is no part of the Composition that the View gives out, so the document does not tell of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fhir_server.access.permissions import Permissions
from fhir_server.access.view import View
from fhir_server.errors import Problem
from fhir_server.interactions import creation, document_bundle, preconditions
from fhir_server.interactions.messages import JSON, AuditContext, Request, Response
from fhir_server.interactions.parameters_body import parameters_in
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.resources.references import ID
from fhir_server.writing.draft import Draft

_TYPE = "Composition"
_KNOWN = ("id", "persist", "graph", "_format", "_pretty")


class _Asked(NamedTuple):
    """The Composition's id, and whether the document is to be stored."""

    id: str
    persist: bool


async def document(view: View, request: Request, service: Service) -> Response:
    """A document Bundle, by GET.  Raises Problem ``forbidden``, ``not_found``, ``gone`` or ``invalid``."""
    asked = _asked(request, request.query)
    if asked.persist:
        raise Problem("invalid", "GET stores nothing: with persist=true, $document is asked by POST.")
    return await _assembled(view, asked.id, request, service)


async def post(request: Request, service: Service, audit: AuditContext) -> Response:
    """The same by POST; with ``persist`` the Bundle is stored, too.  Raises what :func:`document` and creating a Bundle raise."""
    asked = _asked(request, (*request.query, *parameters_in(request)))
    response = await service.read_with_view(request, audit, lambda view: _assembled(view, asked.id, request, service))
    if not asked.persist:
        return response
    await service.require_writable()
    draft = await service.parser.draft(b"".join(response.parts), "Bundle", base=service.base)
    location = await service.write_with_view(request, audit, lambda context: _stored(context, draft, service))
    return msgspec.structs.replace(response, headers=(*response.headers, *location.headers))


def admit(permissions: Permissions, type: str) -> None:
    """Require a scope to read Compositions.  Raises Problem ``forbidden``."""
    permissions.require(type, "r")


def _asked(request: Request, pairs: Sequence[tuple[str, str]]) -> _Asked:
    preconditions.require_only(request)
    given = dict(pairs)
    unknown = sorted(given.keys() - set(_KNOWN))
    if unknown or len(given) < len(pairs):
        raise Problem("invalid", f"$document takes {', '.join(_KNOWN[:2])}, each once" + (f", not {unknown[0]!r}." if unknown else "."))
    if "graph" in given:
        raise Problem("invalid", "This server does not make documents of a GraphDefinition.")
    if given.get("persist", "false") not in ("true", "false"):
        raise Problem("invalid", "persist is true or false.")
    in_path = request.path[1] if len(request.path) == 3 else ""
    if bool(in_path) == ("id" in given):
        raise Problem("invalid", "The Composition is named once: in the URL, or by the parameter id.")
    return _Asked(in_path or given["id"].removeprefix(f"{_TYPE}/"), given.get("persist") == "true")


async def _assembled(view: View, id: str, request: Request, service: Service) -> Response:
    admit(view.permissions, _TYPE)
    if not ID.fullmatch(id):
        raise Problem("invalid", "id is the logical id of a Composition of this server.")
    composition = await view.read(_TYPE, id)
    others = await document_bundle.referred(view, [composition])
    entries = [document_bundle.entry(version, service.base) for version in (composition, *others)]
    return Response(200, headers=((b"content-type", JSON),), parts=document_bundle.document(entries, service.base, view.now))


async def _stored(context: WriteContext, draft: Draft, service: Service) -> Response:
    admitted = creation.admitted(context, draft, service)
    row = await creation.stored(context, admitted, service.new_id(), service, frozenset())
    return Response(200, headers=((b"location", f"{service.base}/Bundle/{row.id}/_history/{row.version}".encode()),))
