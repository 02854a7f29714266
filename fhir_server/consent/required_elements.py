"""Keeps what is served valid: a part whose removal would leave an object invalid takes the object along (http://hl7.org/fhir/R4).

If every value of a required element can be removed, the object that requires it is removed with any of them; if that object is the
resource, the resource itself is withheld from whom the element is hidden.  So nobody is served an invalid resource.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fhir_server.consent.element_labels import NOTHING, Cut, ElementLabels, join_elements
from fhir_server.jsontext import Path
from fhir_server.resources.requirements import Place, place_of, requirements_of

Fragments = Sequence[tuple[Path, str]]


def lift(type: str, resource: Mapping[str, Any], parts: ElementLabels, given: Cut, fragments: Fragments) -> Cut:
    """Move the parts that their objects cannot do without to these objects; returns what the resource as a whole takes over.

    ``given``: what hides nothing of it from who sees the resource: its own labels, and the ``Patient/id`` of its patients, each of whom
    sees the items that name them.  ``fragments``: (path, reference) of each reference to a contained resource.
    """
    row = NOTHING
    changed: Iterable[Path] = parts.paths()
    while changed:
        row = _union((row, _lift(type, resource, parts, given, changed)))
        changed = _join_contained(resource, fragments, parts, _union((row, given))) if "contained" in resource else ()
    return row


def _lift(type: str, resource: Mapping[str, Any], parts: ElementLabels, given: Cut, changed: Iterable[Path]) -> Cut:
    """The same for the objects around the ``changed`` parts."""
    waiting = {_container(path) for path in changed if not _is_dispensable(type, path)}
    if not waiting:
        return NOTHING
    within: dict[Path, set[Path]] = {}  # by object: the parts of it
    for path in parts.paths():
        if not _is_dispensable(type, path):
            within.setdefault(_container(path), set()).add(path)
    row = NOTHING
    while waiting:
        container = max(waiting, key=_depth) if len(waiting) > 1 else next(iter(waiting))
        waiting.discard(container)
        node = _at(resource, container)
        if not isinstance(node, dict):
            continue
        removed = {path for path in within[container] if not _covers(given, parts.cut(path))}  # from somebody who sees the resource
        sources = _indispensable(type, resource, container, node, removed) if removed else None
        if not sources:
            continue
        cut = _union([parts.cut(path) for path in sources])
        for path in sources:
            parts.discard(path)
        if container:
            parts.add_cut(container, cut)
            within.setdefault(_container(container), set()).add(container)
            waiting.add(_container(container))
        else:
            row = _union((row, cut))
    return row


def _depth(container: Path) -> tuple[int, str]:
    return len(container), str(container)


def _is_dispensable(type: str, path: Path) -> bool:
    """Whether a part is a member of the resource, or an item of one, that the resource can do without; most parts are."""
    size = len(path)
    return (size == 1 or (size == 2 and isinstance(path[1], int))) and _is_optional(type, path[0])


@functools.cache
def _is_optional(type: str, member: str) -> bool:
    return not requirements_of(Place(type, type), member)


def _indispensable(type: str, resource: Mapping[str, Any], container: Path, node: dict[str, Any], removed: set[Path]) -> set[Path]:
    """Those of the removed parts of this object without which it is empty or not valid."""
    place = place_of(type, resource, container)
    depth = len(container)
    members = {str(path[depth]) for path in removed}
    required = {each for name in members for each in requirements_of(place, name)} if place else ()
    groups = [(each.members(node), each.least) for each in required]
    if container and len(node) <= len(members) + 1 and node.keys() - {"id"} <= members:
        groups.append(([name for name in node if name != "id"], 1))  # an object that loses all of its members is removed
    found: set[Path] = set()
    for names, least in groups:
        values = [_part_of(removed, path) for name in names for path in _values((*container, name), node[name])]
        if any(values) and values.count(()) < least:
            found |= {path for path in values if path}
    return found


def _part_of(removed: set[Path], path: Path) -> Path:
    """The removed part that holds the value at ``path``, or () if the value stays."""
    if path in removed:
        return path
    return path[:-1] if isinstance(path[-1], int) and path[:-1] in removed else ()


def _values(path: Path, value: Any) -> Iterator[Path]:
    if isinstance(value, list):
        yield from ((*path, number) for number in range(len(value)))
    else:
        yield path


def _join_contained(resource: Mapping[str, Any], fragments: Fragments, parts: ElementLabels, row: Cut) -> list[Path]:
    """Remove a contained resource together with the references to it.

    Returns the paths of the parts to which that added anything that ``row`` does not say of the whole.
    """
    changed: list[Path] = []
    for number, inner in enumerate(resource["contained"]):
        own = ("contained", number)
        name = f"#{inner.get('id')}"
        to_it = [path for path, fragment in fragments if fragment == name and path[:2] != own]
        cut = _cut_around(parts, own)
        if to_it:
            around = [_cut_around(parts, path) for path in to_it]
            if NOTHING not in around:
                cut = _union((cut, *around))  # nothing else refers to it
        if cut == NOTHING:
            continue
        for path in (own, *to_it):
            if not _covers(_union((row, _cut_around(parts, path))), cut):
                parts.add_cut(path, cut)
                changed.append(path)
    return changed


def _covers(cut: Cut, other: Cut) -> bool:
    """Whether ``cut`` removes a part whenever ``other`` does."""
    return (
        other.labels <= cut.labels
        and other.targets <= cut.targets
        and (not other.element or join_elements(cut.element, other.element) == cut.element)
    )


def _cut_around(parts: ElementLabels, path: Path) -> Cut:
    """When the part at ``path`` is removed, by itself or with what encloses it."""
    return _union([parts.cut(path[:length]) for length in range(1, len(path) + 1)])


def _union(cuts: Iterable[Cut]) -> Cut:
    found = [cut for cut in cuts if cut != NOTHING]
    if len(found) < 2:
        return found[0] if found else NOTHING
    return Cut(
        frozenset().union(*[cut.labels for cut in found]),
        functools.reduce(join_elements, [cut.element for cut in found if cut.element], ""),
        frozenset().union(*[cut.targets for cut in found]),
    )


def _container(path: Path) -> Path:
    """The path of the object that the part at ``path`` belongs to."""
    end = len(path) - 1
    while type(path[end]) is not str:
        end -= 1
    return path[:end]


def _at(resource: Mapping[str, Any], path: Path) -> Any:
    node: Any = resource
    for step in path:
        node = node[step]
    return node
