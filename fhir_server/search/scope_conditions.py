"""The condition inside a scope (``?category=laboratory``), as a caller may have it asked of every row.

It is a question like any other search, put by the app that chose the scope: it is held to what may be searched for.
https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.errors import Problem
from fhir_server.search import hidden_references, query
from fhir_server.search.filters import Filter


def condition(type: str, pairs: Sequence[query.Pair], base: str, *, everything: bool) -> Filter | None:
    """What these pairs ask of rows of ``type``; None for what cannot be asked: the scope covers nothing of that type then.

    Never an error: scopes are also looked at for rows that others refer to, so one that fails would tell that there are such.
    ``everything``: from this caller nothing is hidden.
    """
    try:
        where = query.condition(type, pairs, now=0, base=base)
        if not everything:
            hidden_references.require_answerable(type, where, ())
    except Problem:
        return None
    return where
