"""The order in which stores keep rows: the order of an answer without ``_sort``, and of rows with equal sort values.

A row's place is (number of its first patient, or 0 without a patient; when it was stored).  Neither part may reveal
anything that the caller cannot see:

* The patient's number is a digest of the id, not a count.  So the order of two patients' rows does not show which of
  them had a row first.  For a visibility that is limited to named patients, the order is by when rows were stored
  alone, because the row's first patient may be one that the caller cannot see.
* "When it was stored" is when the first of its versions was stored that has the current version's class and release,
  and one of its patients (:func:`first_stored`).  A row that was hidden at first and then released gets the place of
  its release.  A hidden version between visible ones moves nothing.  A caller who could see the row in both classes
  sees it move to the end; pages that are read meanwhile may miss rows if it was the last row of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

from fhir_server.store.rows import Row

When = TypeVar("When", int, str)


def patient_number(id: str) -> int:
    """Return the number of the patient with this logical id, from 1 to 2**31 - 1.  Two ids may share a number."""
    return int.from_bytes(blake2b(id.encode(), digest_size=4).digest(), "big") >> 1 or 1


def first_stored(versions: Sequence[tuple[Row, When]]) -> When:
    """Return when a row counts as stored, from its versions with when each was stored; oldest first, the current one last."""
    current, _ = versions[-1]
    return min([stored for row, stored in versions if _has_same_view(row, current)])


def _has_same_view(row: Row, current: Row) -> bool:
    """Return whether a caller who sees the current version saw this one too, judged by class, release and patients."""
    shared = row.patients == current.patients or not set(row.patients).isdisjoint(current.patients)
    return row.class_id == current.class_id and row.release_at == current.release_at and shared
