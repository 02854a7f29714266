"""Updates by callers who see only part of a row: the elements that were hidden from them are restored.

Without this, reading a resource and writing it back would silently delete what the caller was not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.store import Row
from fhir_server.writing.draft import Draft, parse_draft


def restore_hidden(draft: Draft, current: Row, hidden: Iterable[Path]) -> Draft:
    """The draft with the elements of ``current`` at the paths ``hidden`` restored: whole members, and items of arrays.

    Raises Problem ``conflict`` for an element at a deeper path, whose place in the new version is unknown.
    """
    old, new = jsontext.members(current.body), dict(draft.parts)
    for path in sorted(hidden, key=lambda path: (str(path[0]), path[1:])):
        match path:
            case ("meta", *_):
                continue  # the write itself keeps labels, tags and source
            case (str(name),):
                new[name] = old[name]
            case (str(name), int(position)):
                new[name] = _with_item(new.get(name, b"[]"), jsontext.items(old[name])[position])
            case _:
                raise _conflict()
    try:
        return parse_draft(jsontext.join_members(new), draft.type) if new != draft.parts else draft
    except Problem:  # its text would quote what is hidden
        raise _conflict() from None


def _conflict() -> Problem:
    return Problem("conflict", "This resource has elements that are hidden from this caller, who therefore cannot replace it.")


def _with_item(array: bytes, item: bytes) -> bytes:
    return b"[" + b",".join([*jsontext.items(array), item]) + b"]"
