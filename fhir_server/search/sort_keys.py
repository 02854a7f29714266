"""Parses the keys of ``_sort`` (http://hl7.org/fhir/R4/search.html#sort): search parameters, also chained ones.

R4 leaves open what a chain in ``_sort`` is.  Here it is what HAPI and R5 understand by it: ``subject:Patient.birthdate`` or
``patient.birthdate`` sorts by the values of the resources to which the reference leads.
"""

from __future__ import annotations

from fhir_server.search import chained
from fhir_server.search.chained import NotInTypeError, StepCount
from fhir_server.search.index import Parameter, parameter, parameters
from fhir_server.search.rows import SortKey, SortStep
from fhir_server.search.suggestions import suggestion


def sort_key(type: str, name: str, descending: bool, count: StepCount) -> SortKey:
    """The key that sorts rows of ``type`` by this parameter, which may be chained.

    Raises NotInTypeError if they cannot be sorted by it, and Problem ``invalid`` for too many steps, or for a parameter that is not ready.
    """
    head, dot, tail = name.partition(".")
    if dot:
        return _chained(type, head, tail, descending, count)
    known = parameter(type, name)
    if known is None or not _is_sortable(known):
        raise NotInTypeError(f"{type} cannot be sorted by {name!r}.{suggestion(name, sortable(type))}")
    return SortKey(known.indexed_as.params[0], known.kind.entry, descending)


def sortable(type: str) -> list[str]:
    """The names of the parameters by which a search of this type can be sorted."""
    return [code for code, parameter in parameters(type).items() if _is_sortable(parameter)]


def _is_sortable(parameter: Parameter) -> bool:
    # A parameter that is indexed as several others, or as part of another, has no entries of its own to sort by.
    if parameter.kind.entry == "position":
        return False
    return len(parameter.indexed_as.params) == 1 and parameter.indexed_as.limit is None and not parameter.flag


def _chained(type: str, head: str, tail: str, descending: bool, count: StepCount) -> SortKey:
    params, types = chained.literal_lead(type, head)
    keys: dict[str, SortKey] = {}
    refused: NotInTypeError | None = None
    for target in types:
        code = tail.partition(".")[0].partition(":")[0]
        parameter(target, code)  # refused if it is not ready: the other types alone would be an answer in part
        if len(types) > 1 and code not in parameters(target):
            continue
        count.add(len(params))
        try:
            keys[target] = sort_key(target, tail, descending, count)
        except NotInTypeError as error:
            refused = error
    if refused is not None and len(types) == 1:
        raise refused
    if not keys:
        raise NotInTypeError(f"No type to which {head!r} of {type} may lead can be sorted by {tail!r}.")
    first, *others = keys.values()
    if any(other.kind != first.kind for other in others):
        example = f"{head}:{next(iter(keys))}.{tail}"
        raise NotInTypeError(f"The values of {tail!r} are of different kinds in {', '.join(keys)}. Name the type, as in {example}.")
    steps = [SortStep(param, target, key) for target, key in keys.items() for param in params]
    return SortKey(first.param, first.kind, descending, tuple(steps))
