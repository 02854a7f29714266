"""Stores a new resource for a caller, after all that may speak against it has been judged."""

from __future__ import annotations

from fhir_server.interactions import app_state, meta_rights, statements, write_rights
from fhir_server.interactions.service import Service, WriteContext
from fhir_server.store import Row
from fhir_server.writing.draft import Draft


def admitted(context: WriteContext, draft: Draft, service: Service) -> Draft:
    """The draft as this caller's statement, if the caller may create it.  Reads no stored data.

    Raises Problem ``forbidden``, ``too_large`` or ``unprocessable``.
    """
    view = context.view
    write_rights.require_writable(view, draft, "c")
    draft = statements.as_stated(view.permissions, draft, service.labeler.codes)
    meta_rights.require_may_send(view.permissions, draft, None)
    return draft


async def stored(context: WriteContext, draft: Draft, id: str, service: Service, written: frozenset[str]) -> Row:
    """The row of an :func:`admitted` draft.  ``written``: ``Type/id`` of what the transaction writes, to which it may refer.

    Raises Problem ``unprocessable`` or ``forbidden``.
    """
    view = context.view
    targets = draft.local_targets(service.base)
    await context.tx.prefetch((f"{draft.type}/{id}", *targets))
    await write_rights.require_visible(view, targets - written)
    await statements.require_may_change(context, draft, None)
    draft = statements.marked(view.permissions, draft)
    source = app_state.owner(view.permissions, draft.type)
    row = await context.writer.write(draft, id, takes_labels=True, previous=None, source=source)
    await statements.record_provenance(context, row, service)
    return row
