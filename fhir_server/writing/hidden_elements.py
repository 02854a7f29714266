"""Updates and patches by callers who see only part of a row: what was hidden from them is restored.

Without this, reading a resource and writing it back would silently delete what the caller was not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.jsontext import Path
from fhir_server.store import Row
from fhir_server.writing.draft import Draft, parse_draft


def restore_hidden(draft: Draft, current: Row, visible: bytes, hidden: Iterable[Path]) -> Draft:
    """The draft with the elements of ``current`` at the paths ``hidden`` restored; ``visible`` is the body without them.

    A member, or an item of an array, that the draft has as it is visible becomes what is stored.  Hidden members come back, and hidden
    items of a changed array at its end.  Raises Problem ``conflict`` for a hidden part of something that the draft changes.
    """
    old, seen, new = jsontext.members(current.body), jsontext.members(visible), dict(draft.parts)
    for name, paths in _by_step(hidden).items():
        if name == "meta":
            continue  # the write itself keeps labels, tags and source
        is_untouched = new.get(str(name)) == seen.get(str(name))
        new[str(name)] = old[str(name)] if is_untouched or () in paths else _restored(new.get(str(name), b"[]"), old[str(name)], paths)
    try:
        return parse_draft(jsontext.join_members(new), draft.type) if new != draft.parts else draft
    except Problem:  # its text would quote what is hidden
        raise _conflict() from None


def _restored(changed: bytes, stored: bytes, hidden: Iterable[Path]) -> bytes:
    """A changed array with the hidden items of the stored one, and with the hidden parts of its items."""
    if stored[:1] != b"[" or changed[:1] != b"[":
        raise _conflict()
    items, new = jsontext.items(stored), jsontext.items(changed)
    for position, paths in sorted(_by_step(hidden).items()):
        item = items[int(position)]
        shown = b"" if () in paths else jsontext.remove_paths(item, paths)
        if not shown:
            new.append(item)
        elif shown in new:
            new[new.index(shown)] = item
        else:
            raise _conflict()
    return b"[" + b",".join(new) + b"]"


def _by_step(paths: Iterable[Path]) -> dict[str | int, list[Path]]:
    """The rests of the paths by their first step."""
    found: dict[str | int, list[Path]] = {}
    for path in paths:
        found.setdefault(path[0], []).append(path[1:])
    return found


def _conflict() -> Problem:
    return Problem("conflict", "This resource has elements that are hidden from this caller, who therefore cannot replace it.")
