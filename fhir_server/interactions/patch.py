"""patch (http://hl7.org/fhir/R4/http.html#patch): JSON Patch, XML Patch and FHIRPath Patch, by id and by criteria.

A patch changes the current version as the caller sees it: a hidden part cannot be tested, copied or removed, and positions in an array
count visible items.  The result is written as an update is, which keeps what is hidden.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from fhir_server import jsontext
from fhir_server.access.view import not_found
from fhir_server.errors import Problem
from fhir_server.fhir_xml import patch as xml_patch
from fhir_server.interactions import app_state, conditional_write, criteria, provenance_header, statements, write, write_rights
from fhir_server.interactions.messages import JSON_TYPES, AuditContext, Request, Response, media_type
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.writing import fhirpath_patch, json_patch
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.meta import MERGED, without_items
from fhir_server.writing.parser import is_large

T = TypeVar("T")
Applies = Callable[[bytes, int], bytes]
JSON_PATCH: Final = "application/json-patch+json"
XML_PATCH: Final = "application/xml-patch+xml"
FHIR_JSON: Final = "application/fhir+json"
FHIR_XML: Final = "application/fhir+xml"
FORMATS: Final = (JSON_PATCH, XML_PATCH, FHIR_JSON, FHIR_XML)
"""Media types of patches; in FHIR's own format it is a FHIRPath Patch."""
ACCEPT_PATCH: Final = (b"accept-patch", ", ".join(FORMATS).encode())
_LARGE_XML_PATCH: Final = 25_000  # bytes of patch and resource, which are converted several times
_COSTLY_XML_PATCH: Final = 200_000  # the same, times the steps and predicates of all selectors, each of which may look at all elements
_ATTEMPTS: Final = 8
_REGENERATED: Final = ("generated", "extensions")


class LargeDraftError(Exception):
    """A patched resource is large, so it is parsed outside the transaction, which then begins again."""

    def __init__(self, type: str, text: bytes) -> None:
        super().__init__()
        self.type, self.text = type, text


class LargePatchError(Exception):
    """An XML Patch is large or takes long, or what it changes is large: it is done outside the transaction, which then begins again."""

    def __init__(self, patch: bytes, text: bytes) -> None:
        super().__init__()
        self.patch, self.text = patch, text


class XmlPatch:
    """An XML Patch in a body.  Raises Problem ``invalid`` for a malformed one; a large one is read when it is done."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._operations = None if len(body) > _LARGE_XML_PATCH else xml_patch.parse(body)
        self._weight = sum(operation.selector.weight for operation in self._operations or ())

    def __call__(self, text: bytes, limit: int) -> bytes:
        """As :func:`~fhir_server.fhir_xml.patch.apply`.  Raises LargePatchError."""
        size = len(self.body) + len(text)
        if self._operations is None or size > _LARGE_XML_PATCH or size * self._weight > _COSTLY_XML_PATCH:
            raise LargePatchError(self.body, text)
        return xml_patch.apply(self._operations, text, limit)


@dataclass(slots=True)
class PatchedDrafts:
    """The patched resources of one request that were parsed, or patched, outside its transaction."""

    _found: dict[tuple[str, bytes], Draft] = field(default_factory=dict)
    _patched: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    async def settled(self, job: Callable[[], Awaitable[T]], service: Service, patches: int = 1) -> T:
        """The result of a job that writes ``patches`` patches; it runs again after each large one.  Raises Problem ``busy``."""
        for _ in range(_ATTEMPTS + 2 * patches):
            try:
                return await job()
            except LargePatchError as large_patch:
                known = large_patch.patch, large_patch.text
                self._patched[known] = await service.parser.patched(large_patch.text, large_patch.patch)
            except LargeDraftError as large:
                try:
                    draft = await service.parser.draft(large.text, large.type, base=service.base)
                except Problem as problem:
                    raise _unprocessable(problem) from None
                self._found[large.type, large.text] = draft
        raise Problem("busy", "The server is busy; try again.")

    def patched(self, applies: Applies, text: bytes, limit: int) -> bytes:
        """The text after a patch.  Raises as the patch does."""
        known = self._patched.get((applies.body, text)) if isinstance(applies, XmlPatch) else None
        return applies(text, limit) if known is None else known

    def draft(self, text: bytes, type: str, base: str) -> Draft:
        """The draft of a patched text.  Raises Problem ``unprocessable`` with one issue for each defect, or LargeDraftError."""
        if (known := self._found.get((type, text))) is not None:
            return known
        if is_large(text):
            raise LargeDraftError(type, text)
        try:
            return parse_draft(text, type, base=base)
        except Problem as problem:
            raise _unprocessable(problem) from None


async def patch(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PATCH Type/id``.  Raises Problem ``media_type``, ``invalid``, ``unprocessable``, and what an update raises."""
    criteria.require_none(request)
    return await _patch(request, service, audit, patch_in)


async def conditional_patch(request: Request, service: Service, audit: AuditContext) -> Response:
    """``PATCH Type?criteria``: patches the one match.  Raises Problem ``not_found`` for none, ``precondition`` for several, as above."""
    criteria.of_url(request)
    return await _patch(request, service, audit, conditional_patch_in)


async def _patch(request: Request, service: Service, audit: AuditContext, patch_in: Callable[..., Awaitable[Response]]) -> Response:
    content_type = request.headers.get("content-type", "")
    await require_valid(content_type, request.body, service)
    applies, drafts = read(content_type, request.body, request.path[0]), PatchedDrafts()
    return await drafts.settled(
        lambda: provenance_header.write(request, service, audit, lambda context: patch_in(context, request, service, applies, drafts)),
        service,
    )


async def require_valid(content_type: str, body: bytes, service: Service) -> None:
    """Require that the Parameters of a FHIRPath Patch are a valid resource.  Raises Problem ``invalid`` or ``too_large``."""
    if media_type(content_type) in JSON_TYPES:
        if _resource_type(body) != "Parameters":
            raise Problem(
                "invalid",
                f"A patch in FHIR's formats is a FHIRPath Patch, in Parameters; JSON Patch is {JSON_PATCH}, XML Patch {XML_PATCH}.",
            )
        await service.parser.draft(body, "Parameters", base=service.base)


def read(content_type: str, body: bytes, type: str) -> Applies:
    """The patch in a body: a function of the resource's text and of the bytes that it may add.

    Raises Problem ``media_type`` for another format, ``invalid`` for a malformed patch.
    """
    if media_type(content_type) == JSON_PATCH:
        operations = json_patch.parse(body)
        return lambda text, limit: json_patch.apply(operations, text, limit)
    if media_type(content_type) == XML_PATCH:
        return XmlPatch(body)
    if media_type(content_type) in JSON_TYPES:
        changes = fhirpath_patch.parse(body, type)
        return lambda text, limit: fhirpath_patch.apply(changes, text, type, limit)
    raise Problem("media_type", f"A patch requires Content-Type {' or '.join(FORMATS)}.", headers=(ACCEPT_PATCH,))


def of_entry(resource: dict[str, Any], text: bytes) -> tuple[str, bytes]:
    """Media type and text of the patch in an entry of a Bundle: a Binary, or Parameters.  Raises Problem ``invalid``."""
    if resource.get("resourceType") == "Parameters":
        return FHIR_JSON, text
    if resource.get("resourceType") != "Binary":
        raise Problem("invalid", "An entry with PATCH requires a Binary that holds the patch, or Parameters.")
    try:
        return str(resource.get("contentType", "")), b64decode(re.sub(r"\s", "", str(resource["data"])), validate=True)
    except (KeyError, BadBase64, ValueError):
        raise Problem("invalid", "The Binary of an entry with PATCH requires its patch as base64 in data.") from None


async def patch_in(
    context: WriteContext,
    request: Request,
    service: Service,
    applies: Applies,
    drafts: PatchedDrafts,
    bundle: BundleContext | None = None,
) -> Response:
    """Patch within a transaction.  ``bundle`` is set for an entry of a transaction Bundle.

    Raises Problem ``not_found``, ``unprocessable``, what an update raises, LargeDraftError or LargePatchError.
    """
    view, (type, id) = context.view, request.path[:2]
    write_rights.admit_update(view.permissions, type)
    app_state.require_condition(view.permissions, type, request)
    current = await write.current_for_change(context, request)
    if current.visible is None or current.stored is None:
        raise not_found(type, id)
    body = current.visible.body
    text = _with_safe_narrative(drafts.patched(applies, body, service.parser.max_bytes), body)
    draft = drafts.draft(text, type, service.base)
    if draft.id != id:
        raise Problem("unprocessable", "A patch cannot change the id of a resource.")
    _require_kept_meta(draft, body)
    context.checks.need(type, draft.value, text)
    write_rights.require_writable(view, draft, "u")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    await context.tx.prefetch(draft.local_targets(service.base))
    response = await write.replace_in(context, request, service, draft, current, bundle)
    if await view.read_for_write(type, id, "r") is None:
        return Response(response.status, headers=response.headers)  # what the caller did not send needs a scope to read
    return response


async def conditional_patch_in(
    context: WriteContext,
    request: Request,
    service: Service,
    applies: Applies,
    drafts: PatchedDrafts,
    bundle: BundleContext | None = None,
) -> Response:
    """Patch the one match within a transaction; as :func:`patch_in`."""
    type = request.path[0]
    write_rights.admit_conditional_update(context.view.permissions, type)
    existing = await conditional_write.match(context, request, service, bundle)
    if existing is None:
        raise Problem("not_found", "The criteria match no resource.")
    return await patch_in(context, conditional_write.about(request, type, existing.id), service, applies, drafts, bundle)


def _resource_type(body: bytes) -> Any:
    try:
        return jsontext.parse(jsontext.members(body).get("resourceType", b"null"))
    except (msgspec.DecodeError, Problem):
        return None


def _with_safe_narrative(text: bytes, before: bytes) -> bytes:
    """The patched text without a generated narrative that the patch left as it was: it would tell what is no longer so (R4: SHALL)."""
    if not text.startswith(b"{"):
        return text
    old, new = jsontext.members(before), jsontext.members(text)
    is_stale = "text" in new and new["text"] == old.get("text") and any(new.get(name) != old.get(name) for name in {*old, *new} - {"meta"})
    if not is_stale or jsontext.parse(new["text"]).get("status") not in _REGENERATED:
        return text
    return jsontext.join_members({name: part for name, part in new.items() if name != "text"})


def _require_kept_meta(draft: Draft, before: bytes) -> None:
    """Require that the patch removes no profile, label or tag, which an update never does.  Raises Problem ``unprocessable``."""
    present = jsontext.members(jsontext.members(before).get("meta", b"{}"))
    sent = {name: draft.value.get("meta", {}).get(name, []) for name in MERGED}
    if any(name in without_items({name: present[name]}, sent) for name in MERGED if name in present):
        raise Problem("unprocessable", "A patch cannot remove profiles, labels and tags; $meta-delete does.")


def _unprocessable(problem: Problem) -> Problem:
    return (
        Problem("unprocessable", f"The patched resource is not valid: {problem}", problem.issues) if problem.kind == "invalid" else problem
    )
