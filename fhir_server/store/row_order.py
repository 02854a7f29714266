"""The order in which stores keep rows: what an answer without ``_sort`` is ordered by, and what orders equal sort values.

A row's place is (number of its first patient, 0 if of none; when it was stored).  Neither may tell of anything the
caller does not see:

* The patient's number is a digest of its id, not a count: the order of two patients' rows must not tell which of them
  first had a row.  To a caller bounded to named patients the first patient of a row may itself be out of view, so for
  a bounded sight the order is by when rows were stored alone.
* "When it was stored" is when the first of its versions was stored that have the current one's class, its release and
  one of its patients (:func:`first`).  A row that was out of view first, and then released, stands where it came into
  view; a version that is out of view, with versions before and after it in view, moves nothing.  A caller who saw the
  row in both classes sees it move to the end; pages walked while it is the last row of one may then leave rows out.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

from fhir_server.store import Row

When = TypeVar("When", int, str)


def patient_number(id: str) -> int:
    """The number of the patient with this logical id, from 1 to 2**31 - 1; two ids may share one."""
    return int.from_bytes(blake2b(id.encode(), digest_size=4).digest(), "big") >> 1 or 1


def first(versions: Sequence[tuple[Row, When]]) -> When:
    """When a row of these versions was stored, each given with when it itself was; oldest first, the last is the current one."""
    current, _ = versions[-1]
    return min([stored for row, stored in versions if _continued(row, current)])


def _continued(row: Row, current: Row) -> bool:
    """Whether who is shown the current version was shown this one, as far as class, release and patients say."""
    shared = row.patients == current.patients or not set(row.patients).isdisjoint(current.patients)
    return row.class_id == current.class_id and row.release_at == current.release_at and shared
