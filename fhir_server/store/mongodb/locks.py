"""Names of locks: documents that transactions touch for what their outcome rests on beyond what they write.

A conditional create looks for rows and writes one if there is none.  Two at once would each find none; both touch the
document of their claim, so one of them is run again and finds the other's row.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from fhir_server.search.filters import AllOf, Filter, Has, TokenIs

SLOTS: Final = 32  # documents of a lock that many transactions at once may only read
_BUCKETS: Final = 4096


def lock(kind: str, name: str) -> str:
    """The lock of this name.  Names share locks, so that locks do not pile up; to meet in one by chance costs a repetition."""
    return f"{kind}/{int.from_bytes(blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=4).digest(), 'big') % _BUCKETS}"


def claim(type: str, where: Filter) -> str:
    """A search's most telling conjunct, as text: conditions that have it in common share the lock."""
    parts = sorted(_conjuncts(where), key=lambda part: (not _identifies(part), _text(part)))
    return f"{type}?{_text(parts[0]) if parts else ''}"


def _conjuncts(where: Filter) -> Iterator[Filter]:
    if isinstance(where, AllOf):
        for part in where.parts:
            yield from _conjuncts(part)
    else:
        yield where


def _identifies(part: Filter) -> bool:
    return isinstance(part, Has) and part.param == "identifier" and isinstance(part.predicate, TokenIs)


def _text(part: object) -> str:
    """The same text in every process (a set's order is not)."""
    if isinstance(part, frozenset):
        return "{" + ",".join(sorted(map(repr, part))) + "}"
    if isinstance(part, tuple):
        return "(" + ",".join(map(_text, part)) + ")"
    names = getattr(part, "__slots__", None)
    return type(part).__name__ + _text(tuple([getattr(part, name) for name in names])) if names is not None else repr(part)
