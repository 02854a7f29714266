"""References and canonicals, by what their text names (http://hl7.org/fhir/R4/search.html#reference).

A target is ``Type/id`` for a row of ours, however it was addressed (our base URL and ``/_history/n`` are taken off),
and otherwise the absolute URL or URN as written.  A versioned canonical is also found without its version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fhir_server.search.escaping import unescape
from fhir_server.search.filters import RefersTo
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+")


def target(text: str, base: str) -> str:
    """The target that a reference's text names."""
    local = text[len(base) + 1 :] if base and text.startswith(base) and text[len(base) : len(base) + 1] == "/" else text
    found = _RELATIVE.fullmatch(local)
    if found:
        return f"{found[1]}/{found[2]}"
    return text.partition("/_history/")[0]


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(target,) of a Reference with a literal reference, a canonical or a uri; contained resources are nobody's targets."""
    if type(value) is dict:
        text = value.get("reference")
        return (((target(text, base),), ("reference",)),) if type(text) is str and text[:1] not in ("", "#") else ()
    if type(value) is not str or value[:1] in ("", "#"):
        return ()
    bare = value.partition("|")[0]
    return [((target(bare, base),), ()), *((((value,), ()),) if bare != value else ())]


def test(text: str, asked: ValueContext) -> RefersTo:
    """``id`` (of any target type, or of the one the modifier names), ``Type/id``, or an absolute URL or URN."""
    meant = unescape(text)
    types = (asked.modifier,) if asked.modifier else asked.targets
    if _ID.fullmatch(meant):
        return RefersTo(frozenset(f"{type}/{meant}" for type in types))
    named = target(meant, asked.base)
    found = _RELATIVE.fullmatch(named)
    if asked.modifier and (not found or found[1] != asked.modifier):
        raise ValueError("with a type as modifier the value must be an id of that type")
    if not found and not _ABSOLUTE.fullmatch(named):
        raise ValueError("a reference is written id, Type/id, or as an absolute URL")
    return RefersTo(frozenset({named}))


KIND = ParameterType("reference", ("Reference", "Canonical", "Uri"), frozenset(), extract, test)
