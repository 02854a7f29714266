"""Stores one line of an imported file: as a create, or as an update if it has an id, with all their rules.

A line is judged as that request alone would be: by the caller's scopes and policy, its references by what the caller sees.  The audit
log has it as an entry of the status request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from fhir_server.errors import Issue, Problem, outcome
from fhir_server.interactions import profile_claims, write, write_rights
from fhir_server.interactions.messages import AuditContext, AuditedEntry, Request, Response
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.interactions.write import BundleContext
from fhir_server.writing.draft import Draft
from fhir_server.writing.meta import changes_nothing


async def store(service: Service, request: Request, audit: AuditContext, type: str, text: bytes, name: str) -> None:
    """Store the resource in a line.  ``name``: of the line; a resource without an id gets one that follows from it.

    Raises what a create or update raises.
    """
    permissions = await service.authenticate(request, audit)
    of_row = msgspec.structs.replace(request, method="POST", path=(type,), query=(), headers=_headers(request), body=b"")
    status = 0
    try:
        draft = await service.parser.draft(text, type, base=service.base)
        if draft.id is not None:
            of_row = msgspec.structs.replace(of_row, method="PUT", path=(type, draft.id))
        admit = write_rights.admit_create if draft.id is None else write_rights.admit_update
        admit(permissions, type)
        await profile_claims.checked(draft, service.profiles)
        of_entry = AuditContext(permissions=permissions, shown=audit.shown, store_lines=audit.store_lines)
        status = (await _written(service, of_row, of_entry, draft, name)).status
    except Problem as problem:
        status = problem.status
        raise
    finally:
        audit.entries.append(AuditedEntry(of_row, status or 500))


async def _written(service: Service, of_row: Request, audit: AuditContext, draft: Draft, name: str) -> Response:
    """The response to the write; 200 if the resource is there already and nothing is written."""
    id = draft.id or sha256(name.encode()).hexdigest()[:32]

    async def job(context: WriteContext) -> Response:
        present = await context.view.read_for_write(draft.type, id, "cu")
        if draft.id is None:
            if present is not None:
                return Response(200)
            return await write.create_in(context, of_row, service, draft, BundleContext(id, frozenset()))
        if present is not None and changes_nothing(draft, present.body):
            return Response(200)
        return await write.update_in(context, of_row, service, draft)

    return await service.write_with_view(of_row, audit, job)


def _headers(request: Request) -> dict[str, str]:
    """The headers of a line's request: who sends it, and that its answer is not wanted."""
    return {"prefer": "return=minimal"} | {name: request.headers[name] for name in ("authorization",) if name in request.headers}


def refusal(problem: Problem, line: int) -> bytes:
    """The OperationOutcome of a refused line, numbered from 1."""
    return outcome_of(Issue(issue.code, f"Line {line}: {issue.text}", issue.expression, issue.severity) for issue in problem.issues)


def outcome_of(issues: Iterable[Issue]) -> bytes:
    """An OperationOutcome as a line of NDJSON."""
    return json.dumps(json.loads(outcome(tuple(issues))), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
