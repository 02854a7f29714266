"""Search result parameters: they shape the result of a search and do not narrow it (http://hl7.org/fhir/R4/search.html#return)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast, get_args

from fhir_server.errors import Problem
from fhir_server.resources import definitions
from fhir_server.search.chained import NotInTypeError, StepCount
from fhir_server.search.index import parameter, parameters
from fhir_server.search.limits import MAX_SORT_KEYS, whole_number
from fhir_server.search.rows import SortKey
from fhir_server.search.sort_keys import sort_key
from fhir_server.search.suggestions import suggestion

DEFAULT_COUNT: Final = 20
MAX_COUNT: Final = 1000

Total = Literal["none", "accurate", "estimate"]
Summary = Literal["count", "true", "text", "data", "false"]
DEFAULT_TOTAL: Final[Total] = "accurate"
_TOTALS: Final[dict[str, Total]] = {"count": "accurate", "estimate": "estimate", "none": "none"}

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Include:
    """``_include`` or ``_revinclude``: reference parameter ``param`` of ``type``, limited to targets of ``target_type`` if given.

    ``iterates``: it is also followed from resources that were included.
    """

    type: str
    param: str
    target_type: str | None = None
    iterates: bool = False


@dataclass(slots=True)
class ResultParameters:
    """The result parameters of a search of ``types``; :meth:`add` adds one.

    ``refused_keys``: of each sort key that is not supported, what an error says.
    """

    types: tuple[str, ...]
    sort: tuple[SortKey, ...] = ()
    count: int = DEFAULT_COUNT
    total: Total = DEFAULT_TOTAL
    summary: Summary = "false"
    elements: tuple[str, ...] = ()
    includes: list[Include] = field(default_factory=list)
    revincludes: list[Include] = field(default_factory=list)
    cursor: str | None = None
    refused_keys: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add(self, name: str, value: str) -> list[Pair]:
        """Add a parameter and return its pairs for the self link.  Raises Problem ``invalid``."""
        code, _, modifier = name.partition(":")
        iterates = code in _INCLUDES and modifier in _ITERATE
        if ":" in name and not iterates:
            raise Problem("invalid", f"The search parameter {code!r} does not support the modifier {modifier!r}.")
        if code in _INCLUDES:
            return [(name, applied) for applied in _INCLUDES[code](self, value, iterates)]
        if code in self._names:
            raise Problem("invalid", f"The search parameter {code!r} may occur only once.")
        self._names.add(code)
        return [(code, applied) for applied in _HANDLERS[code](self, value)]


# Each handler returns a list of the value for the self link; an empty list if the link has none.
_Handler = Callable[[ResultParameters, str], list[str]]


def _count(controls: ResultParameters, value: str) -> list[str]:
    number = whole_number(value)
    if number is None:
        raise _malformed("_count", value, "it must be a whole number, 0 or more")
    controls.count = min(number, MAX_COUNT)
    return [str(controls.count)]


def _total(controls: ResultParameters, value: str) -> list[str]:
    controls.total = cast(Total, _one_of("_total", value, get_args(Total)))
    return [value]


def _total_method(controls: ResultParameters, value: str) -> list[str]:
    """``_totalMethod``, by which fhirpy and Aidbox ask for what R4 calls ``_total``."""
    controls.total = _TOTALS[_one_of("_totalMethod", value, tuple(_TOTALS))]
    return [value]


def _summary(controls: ResultParameters, value: str) -> list[str]:
    controls.summary = cast(Summary, _one_of("_summary", value, get_args(Summary)))
    return [value]


def _one_of(name: str, value: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise _malformed(name, value, f"it must be one of {', '.join(words)}")
    return value


def _malformed(name: str, value: str, reason: str) -> Problem:
    return Problem("invalid", f"The search parameter {name!r} cannot have the value {value!r}: {reason}.")


def _contained(controls: ResultParameters, value: str) -> list[str]:
    """``_contained``.  To leave out "true" in silence would answer another question, also if handling is lenient."""
    if _one_of("_contained", value, ("false", "true", "both")) != "false":
        raise Problem("invalid", "Contained resources are not searched: '_contained' can only be false. Search for what contains them.")
    return [value]


def _contained_type(controls: ResultParameters, value: str) -> list[str]:
    """``_containedType``, which says what is returned of contained resources that are found, and so has no effect."""
    return [_one_of("_containedType", value, ("container", "contained"))]


def _elements(controls: ResultParameters, value: str) -> list[str]:
    controls.elements = tuple(value.split(","))
    if not all(name.isidentifier() for name in controls.elements):
        raise _malformed("_elements", value, "it must be a list of element names")
    return [value]


def _sort(controls: ResultParameters, value: str) -> list[str]:
    keys, applied, count = [], [], StepCount()
    texts = value.split(",")
    if len(controls.types) > 1:
        raise Problem("invalid", "A search of several types cannot be sorted; it is in the order of the types.")
    if len(texts) > MAX_SORT_KEYS:
        raise Problem("invalid", f"A search may have at most {MAX_SORT_KEYS} sort keys.")
    for text in texts:
        try:
            keys.append(sort_key(controls.types[0], text.removeprefix("-"), text.startswith("-"), count))
        except NotInTypeError as error:
            controls.refused_keys.append(str(error))
            continue
        applied.append(text)
    controls.sort = tuple(keys)
    return [",".join(applied)] if applied else []


def _include(controls: ResultParameters, value: str, iterates: bool) -> list[str]:
    found = include("_include", value, None if iterates else controls.types)
    if found and not iterates and found[0].type not in controls.types:
        raise Problem("invalid", f"'_include={value}' starts from {found[0].type}, but the search is for {', '.join(controls.types)}.")
    controls.includes += [replace(one, iterates=iterates) for one in found]
    return [value]


def _revinclude(controls: ResultParameters, value: str, iterates: bool) -> list[str]:
    found = [one for one in include("_revinclude", value, None) if iterates or _may_refer(one, controls.types)]
    if not found:
        raise Problem("invalid", f"'_revinclude={value}' cannot refer to {', '.join(controls.types)}.")
    controls.revincludes += [replace(one, iterates=iterates) for one in found]
    return [value]


def _may_refer(one: Include, types: tuple[str, ...]) -> bool:
    named = {one.target_type} if one.target_type else set(parameters(one.type)[one.param].targets)
    return not named.isdisjoint(types)


def include(name: str, value: str, types: tuple[str, ...] | None) -> list[Include]:
    """Parse ``Type:param``, ``Type:param:Target``, ``Type:*`` or ``*``: all references of ``types`` (None: of all types).

    Raises Problem ``invalid`` for a name that R4 does not have.
    """
    if value == "*":
        return [one for type in types or definitions.types() for one in _all_of(type)]
    type, *rest = value.split(":")
    if len(rest) not in (1, 2) or type not in definitions.types() or (rest[0] == "*" and len(rest) == 2):
        raise _malformed(name, value, "it must be Type:parameter, Type:parameter:Target, Type:* or *")
    if rest[0] == "*":
        return _all_of(type)
    known = parameter(type, rest[0])
    if known is None or known.definition.kind != "reference":
        valid = suggestion(rest[0], [one.param for one in _all_of(type)])
        raise Problem("invalid", f"{type} has no reference parameter {rest[0]!r}.{valid}")
    if len(rest) == 2 and rest[1] not in known.targets:
        raise Problem("invalid", f"The parameter {rest[0]!r} of {type} does not refer to {rest[1]!r}.")
    return [Include(type, rest[0], rest[1] if len(rest) == 2 else None)]


def _all_of(type: str) -> list[Include]:
    """An Include for each reference parameter of a type."""
    return [Include(type, code) for code, parameter in parameters(type).items() if parameter.definition.kind == "reference"]


def _page(controls: ResultParameters, value: str) -> list[str]:
    controls.cursor = value
    return []


def _ignore(controls: ResultParameters, value: str) -> list[str]:
    return [value]


_INCLUDES: Final = {"_include": _include, "_revinclude": _revinclude}
_ITERATE: Final = frozenset({"iterate", "recurse"})  # the name in STU3, which R4 keeps as a synonym

_HANDLERS: Final[dict[str, _Handler]] = {
    "_contained": _contained,
    "_containedType": _contained_type,
    "_count": _count,
    "_elements": _elements,
    "_format": _ignore,
    "_page": _page,
    "_pretty": _ignore,
    "_sort": _sort,
    "_summary": _summary,
    "_total": _total,
    "_totalMethod": _total_method,
}
CONTROLS: Final = frozenset({*_HANDLERS, *_INCLUDES})
"""The names of all result parameters."""
