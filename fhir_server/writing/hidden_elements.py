"""Updates by callers who do not see all of a row: what was cut from their copy is put back.

Without this, reading a resource and writing it back would silently delete what the caller was not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.store import Row
from fhir_server.writing import writer
from fhir_server.writing.writer import Draft


def restore_hidden(draft: Draft, current: Row, cut: Iterable[Path]) -> Draft:
    """The draft with the parts of ``current`` that stand at the paths ``cut`` put back: whole members, and items of arrays.

    Raises Problem ``conflict`` for a part that lies deeper, whose place in the new version is anybody's guess.
    """
    old, new = jsontext.members(current.body), dict(draft.parts)
    for path in sorted(cut, key=lambda path: (str(path[0]), path[1:])):
        match path:
            case ("meta", *_):
                continue  # labels, tags and source are kept by the write itself
            case (str(name),):
                new[name] = old[name]
            case (str(name), int(place)):
                new[name] = _with(new.get(name, b"[]"), jsontext.items(old[name])[place])
            case _:
                raise Problem("conflict", "This resource has parts that this caller is not shown; it cannot be replaced by this caller.")
    return writer.parse_draft(jsontext.join_members(new), draft.type) if new != draft.parts else draft


def _with(array: bytes, item: bytes) -> bytes:
    items = jsontext.items(array)
    return b"[" + b",".join([*items, item]) + b"]"
