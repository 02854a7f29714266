"""``_lastUpdated``: a condition on the one time that the caller reads (http://hl7.org/fhir/R4/search.html#lastUpdated).

A row has an entry for each part of which a caller may know when it changed, and the greatest that the caller is admitted to is the time
in ``meta.lastUpdated``.  So a condition that an earlier time meets says also that no later one fails it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fhir_server.search.filters import AllOf, DateIs, Filter, Has, Not

CODE: Final = "_lastUpdated"

# The instant from which on no entry may lie; of the prefixes that are not met by all times after one that meets them.
_ENDS: Final[dict[str, Callable[[DateIs], int]]] = {
    "eq": lambda date: date.hi,
    "le": lambda date: date.hi,
    "ap": lambda date: date.hi,
    "lt": lambda date: date.lo,
    "eb": lambda date: date.lo,
}


def of_greatest(date: DateIs) -> Filter:
    """The condition that the greatest visible time meets this predicate."""
    if date.prefix == "ne":
        return AllOf((Has(CODE, date), Not(of_greatest(DateIs("eq", date.lo, date.hi)))))
    end = _ENDS.get(date.prefix)
    if end is None:
        return Has(CODE, date)
    return AllOf((Has(CODE, date), Not(Has(CODE, DateIs("sa", end(date), end(date))))))
