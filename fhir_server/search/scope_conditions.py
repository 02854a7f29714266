"""Compiles the condition in a scope (``?category=laboratory``).

A scope is chosen by the app, so its condition is subject to the same restrictions as a search.
https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.errors import Problem
from fhir_server.search import hidden_references, query
from fhir_server.search.filters import Filter


def condition(type: str, pairs: Sequence[query.Pair], base: str, *, everything: bool) -> Filter | None:
    """The condition of these pairs on rows of ``type``; None if it is not supported: the scope then covers no resource of that type.

    It raises no error: scopes are also evaluated for referenced resources, so an error would disclose that these exist.
    ``everything`` says that nothing is hidden from the caller.
    """
    try:
        where = query.condition(type, pairs, now=0, base=base)
        if not everything:
            hidden_references.require_answerable(type, where, ())
    except Problem:
        return None
    return where
