"""The order in which stores keep rows: what an answer without ``_sort`` is ordered by.

A row's place is (number of its first patient, 0 if of none; when its logical id was first stored).  The
patient's number is a digest of its id, not a count: the order of two patients' rows must not tell which of
them first had a row, which may be one that the caller does not see.
"""

from __future__ import annotations

from hashlib import blake2b


def patient_number(id: str) -> int:
    """The number of the patient with this logical id, from 1 to 2**31 - 1; two ids may share one."""
    return int.from_bytes(blake2b(id.encode(), digest_size=4).digest(), "big") >> 1 or 1
