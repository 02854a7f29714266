"""The class of an index entry that only callers who see other rows may know of.

A row can hold parts that the rows they refer to guard (:class:`~fhir_server.store.GuardedReference`).  An entry made from such a part
has a class that a caller is admitted to who sees the part's own class and all guarding rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from fhir_server.consent.element_labels import join_elements
from fhir_server.consent.visibility_classes import VisibilityClass, with_target
from fhir_server.resources import COMMON_DATA_CLASSES
from fhir_server.store import Row

Classified = tuple[Row, VisibilityClass]
"""A row and its class."""


def guarded_class(whole: Classified, parts: Sequence[VisibilityClass], guards: Iterable[Classified | None]) -> VisibilityClass | None:
    """The class of what is known to callers who see these parts of the row ``whole``, and all of its guards.

    None if no class says so: not everybody whom the class admits, and who sees the row, sees each guard.  A guard that is None was
    never stored.
    """
    own = whole[1]
    labels = own.labels.union(*(part.labels for part in parts))
    element = reduce(join_elements, (part.element for part in parts if not part.element.startswith("@")), "") or "*"
    for guard in guards:
        if guard is None or not _is_seen_with(whole, guard):
            return None
        other, key = guard
        labels |= key.labels
        element = join_elements(with_target(element, key.data, other.type), key.element)
    return VisibilityClass(own.data, labels, element)


def _is_seen_with(whole: Classified, guard: Classified) -> bool:
    """Whether who sees a row, and is admitted to the class of its guard, sees the guard, whatever its release and patients."""
    (row, own), (other, key) = whole, guard
    if other.release_at > max(row.release_at, row.updated):
        return False
    if key.data in COMMON_DATA_CLASSES:
        return not key.labels  # others are seen through certain references alone
    if not row.patients:
        return not other.patients and own.data not in COMMON_DATA_CLASSES
    return set(row.patients) <= set(other.patients)
