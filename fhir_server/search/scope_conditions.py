"""Compiles the condition in a scope (``?category=laboratory``).

A scope is chosen by the app, so its condition is subject to the same restrictions as a search. It has no chains, no ``_has`` and no value
sets: what a scope covers must follow from a resource itself. It uses R4's search parameters alone, because a custom one may change or end.
https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.errors import Problem
from fhir_server.search import code_sets, custom_parameters, hidden_references, query
from fhir_server.search.filters import Filter
from fhir_server.search.steps import steps


def condition(type: str, pairs: Sequence[query.Pair], base: str) -> Filter | None:
    """The filter of these search parameters, or None if they are invalid: the scope then covers nothing of ``type``.

    Invalid parameters raise no error: the scopes are also applied to resources that other resources refer to, and an error
    would reveal that such resources exist.
    """
    try:
        with custom_parameters.in_use(custom_parameters.NONE):
            where = query.condition(type, pairs, now=0, base=base)
    except Problem:
        return None
    return None if any(steps(where)) or any(code_sets.sets(where)) else where


def answerable_condition(type: str, pairs: Sequence[query.Pair], base: str) -> Filter | None:
    """The same for a caller from whom resources can be hidden: None also for a condition that hidden references decide."""
    where = condition(type, pairs, base)
    if where is None:
        return None
    try:
        hidden_references.require_answerable(type, where, ())
    except Problem:
        return None
    return where
