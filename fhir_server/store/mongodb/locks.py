"""Names of lock documents: transactions write them for data that their outcome depends on but that they do not write.

Example: a conditional create searches for rows and writes one if there is none.  Two concurrent ones would both find none.
Both write the lock document of their search, so one of them is repeated and then finds the other's row.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from fhir_server.search.filters import Filter, Has, TokenIs
from fhir_server.store.conditions import conjuncts

SLOTS: Final = 32  # documents of each lock that transactions may share for reading
_BUCKETS: Final = 4096


def lock(kind: str, name: str) -> str:
    """Return the lock for this name.  Names share a limited number of locks; a collision only costs a repetition."""
    return f"{kind}/{int.from_bytes(blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=4).digest(), 'big') % _BUCKETS}"


def claim(type: str, where: Filter) -> str:
    """Return the most selective conjunct of a search as text.  Searches with the same one share a lock."""
    parts = sorted(conjuncts(where), key=lambda part: (not _is_identifier(part), _text(part)))
    return f"{type}?{_text(parts[0]) if parts else ''}"


def _is_identifier(part: Filter) -> bool:
    return isinstance(part, Has) and part.param == "identifier" and isinstance(part.predicate, TokenIs)


def _text(part: object) -> str:
    """Return a text that is the same in every process, which the order of a set is not."""
    if isinstance(part, frozenset):
        return "{" + ",".join(sorted(map(repr, part))) + "}"
    if isinstance(part, tuple):
        return "(" + ",".join(map(_text, part)) + ")"
    names = getattr(part, "__slots__", None)
    if names is None:
        return repr(part)
    # The visibility of a step is that of the caller at this instant; searches with the same step share a lock all the same.
    return type(part).__name__ + _text(tuple([getattr(part, name) for name in names if name != "visibility"]))
