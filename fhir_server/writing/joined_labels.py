"""Joins the labels that a version is stored with and those that it gets now: a caller sees no more than under either.

``fhir-server relabel`` gives all rows the joined labels first, because a row may inherit from rows that it has not reached yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from fhir_server.access.permissions import INTERNAL
from fhir_server.consent.visibility_classes import MIXED, VisibilityClass
from fhir_server.jsontext import Path
from fhir_server.store import GuardedReference, LabeledElement, Row


async def joined(stored: Row, now: Row, keys: Sequence[str], class_id: Callable[[VisibilityClass], Awaitable[int]]) -> Row:
    """``now`` with the labels of both; ``keys``: the texts of all visibility classes; ``class_id`` returns the number of one."""
    rows = [VisibilityClass.parse(keys[row.class_id]) for row in (stored, now)]
    elements = [{part.path: VisibilityClass.parse(keys[part.class_id]) for part in row.labeled_elements} for row in (stored, now)]
    whole = _joined_class(*rows)
    patients = tuple(sorted({*stored.patients, *now.patients}))
    if len(patients) > 1 and patients != stored.patients:
        whole = VisibilityClass(whole.data, whole.labels | {MIXED})
    parts: dict[Path, VisibilityClass] = {}
    for path in sorted({*elements[0], *elements[1]}, key=len):
        outer = [parts[path[:length]] for length in range(1, len(path)) if path[:length] in parts]
        key = whole
        for other in (*(found[path] for found in elements if path in found), *outer):
            key = _joined_class(key, other)
        parts[path] = key
    order = dict.fromkeys((*elements[1], *elements[0]))  # that of ``now``, to which it is compared
    references: dict[GuardedReference, None] = dict.fromkeys((*now.guarded_references, *stored.guarded_references))
    return msgspec.structs.replace(
        now, patients=patients, class_id=await class_id(whole), release_at=max(stored.release_at, now.release_at),
        labeled_elements=tuple([LabeledElement(path, await class_id(parts[path])) for path in order if parts[path] != whole]),
        guarded_references=tuple(references),
    )  # fmt: skip


def _joined_class(one: VisibilityClass, other: VisibilityClass) -> VisibilityClass:
    """A class as protected as both.  No class is known to be as protected as two data classes, except the internal one."""
    (names, _, target), (others, _, other_target) = one.element.partition("@"), other.element.partition("@")
    if one.data != other.data or (target and other_target and target != other_target):
        return INTERNAL
    element = "+".join(sorted({*names.split("+"), *others.split("+")} - {""}))
    target = target or other_target
    return VisibilityClass(one.data, one.labels | other.labels, f"{element}@{target}" if target else element)
