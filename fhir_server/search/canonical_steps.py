"""Follows the steps of chained parameters and of ``_has`` that go by canonical URL, before a search reaches a store.

A canonical with a version refers to the resources with this URL and version, one without a version to all with this URL
(http://hl7.org/fhir/R4/references.html#canonical).  What a step leads to is read in the step's Visibility: only what a search of its
type shows the caller.  The step becomes a plain condition on URLs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Final

from fhir_server.errors import Problem
from fhir_server.search import looked_up_steps
from fhir_server.search.canonical_references import ANY_VERSION, url_and_version
from fhir_server.search.filters import NOTHING, AllOf, AnyOf, Filter, Has, Not, ReferredBy, RefersTo, RefersToMatch, TokenIs
from fhir_server.search.limits import MAX_VALUES
from fhir_server.search.looked_up_steps import EntriesOf
from fhir_server.search.steps import steps

_SEPARATOR: Final = "|"
_FRAGMENT: Final = "#"


async def followed(type: str, where: Filter, entries_of: EntriesOf) -> Filter:
    """The condition on rows of ``type`` without steps by canonical URL; the steps have Visibilities.

    Raises Problem ``invalid`` for a step that leads to too many visible rows.
    """
    if not any(step.by_canonical for step in steps(where)):
        return where
    return await _followed(type, where, entries_of)


async def _followed(type: str, where: Filter, entries_of: EntriesOf) -> Filter:
    match where:
        case RefersToMatch() | ReferredBy():
            step = replace(where, where=await _followed(where.type, where.where, entries_of))
            if not step.by_canonical:
                return step
            return await (_to_named(step, entries_of) if isinstance(step, RefersToMatch) else _of_naming(type, step, entries_of))
        case AllOf(parts):
            return AllOf(tuple([await _followed(type, part, entries_of) for part in parts]))
        case AnyOf(parts):
            return AnyOf(tuple([await _followed(type, part, entries_of) for part in parts]))
        case Not(part):
            return Not(await _followed(type, part, entries_of))
    return where


async def _to_named(step: RefersToMatch, entries_of: EntriesOf) -> Filter:
    url, version = url_and_version(step.type)
    names: set[str] = set()
    for row in await looked_up_steps.rows(step, ((url, "reference"), (version, "token")), entries_of):
        ends = ["", *[str(entry.value[1]) for entry in row.entries if entry.param == version]]
        names.update([f"{entry.value[0]}{ANY_VERSION}{end}" for entry in row.entries if entry.param == url for end in ends])
    return Has(step.param, RefersTo(frozenset(names))) if names else NOTHING


async def _of_naming(type: str, step: ReferredBy, entries_of: EntriesOf) -> Filter:
    """The condition of rows of ``type`` that rows of the step name."""
    url, version = url_and_version(type)
    urls: dict[str, set[str]] = defaultdict(set)  # by version; "": any
    for row in await looked_up_steps.rows(step, ((step.param, "reference"),), entries_of):
        for entry in row.entries:
            name, separator, of = str(entry.value[0]).partition(_SEPARATOR)
            if separator and _FRAGMENT not in of:
                urls[of].add(name)
    if len(urls) > MAX_VALUES:
        raise Problem("invalid", f"_has leads to more than {MAX_VALUES} different versions of resources of type {type}. Narrow it.")
    return AnyOf(tuple([_with_version(Has(url, RefersTo(frozenset(names))), version, of) for of, names in sorted(urls.items())]))


def _with_version(named: Filter, param: str, version: str) -> Filter:
    return AllOf((named, Has(param, TokenIs(None, version)))) if version else named
