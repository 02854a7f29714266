"""Search parameters of type ``reference``, and canonicals (http://hl7.org/fhir/R4/search.html#reference).

A target is ``Type/id`` for a resource of this server, whether the reference is relative, begins with the server's base URL or ends
in ``/_history/n``. Any other target is the absolute URL or URN as written. A canonical is also found without its version and fragment;
one without a version is also indexed as ``url|``, by which chained parameters tell it from one with a version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fhir_server.resources.references import ID, versioned_target
from fhir_server.resources.server_base import server_base
from fhir_server.search.escaping import unescape
from fhir_server.search.filters import RefersTo, TokenIs
from fhir_server.search.parameter_types import token
from fhir_server.search.parameter_types._parameter_type import Found, More, ParameterType, ValueContext

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+")


def target_text(text: str, base: str) -> str:
    """The target that a reference names, as index entries hold it; ``base`` is the server's FHIR base URL."""
    relative = server_base(base).relative(text)
    target = versioned_target(text if relative is None else relative)
    if target is not None:
        return "/".join(target)
    return text.partition("/_history/")[0]


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(target,) of a Reference with a literal reference, a canonical or a uri; nothing for a reference to a contained resource."""
    if type(value) is dict:
        text = value.get("reference")
        return (((target_text(text, base),), ("reference",)),) if type(text) is str and text[:1] not in ("", "#") else ()
    if type(value) is not str or value[:1] in ("", "#"):
        return ()
    whole = value.partition("#")[0]
    url, separator, _ = whole.partition("|")
    versioned = whole if separator else whole + "|"
    return [((target_text(url, base),), ()), ((versioned,), ()), *([((value,), ())] if value != whole else [])]


def extract_more(value: Any) -> Iterable[More]:
    """For ``identifier``: (system, value) of the identifier in a Reference."""
    identifier = value.get("identifier") if type(value) is dict else None
    if type(identifier) is not dict or type(identifier.get("value")) is not str:
        return ()
    return (("identifier", "token", (identifier.get("system", ""), identifier["value"]), ("identifier",)),)


def parse_value(text: str, context: ValueContext) -> RefersTo | TokenIs:
    """``id`` (of any target type, or of the type that the modifier names), ``Type/id``, or an absolute URL or URN.

    By modifier ``identifier``: a token, for the identifier in the Reference.
    """
    if context.modifier == "identifier":
        return token.parse_token(text)
    reference = unescape(text)
    types = (context.modifier,) if context.modifier else context.targets
    if ID.fullmatch(reference):
        return RefersTo(frozenset(f"{type}/{reference}" for type in types))
    named = target_text(reference, context.base)
    target = versioned_target(named)
    if context.modifier and (target is None or target[0] != context.modifier):
        raise ValueError("with a resource type as modifier, the value must be an id of that type")
    if target is None and not _ABSOLUTE.fullmatch(named):
        raise ValueError("a reference is written id, Type/id, or as an absolute URL")
    return RefersTo(frozenset({named}))


REFERENCE = ParameterType("reference", ("Reference", "Canonical", "Uri"), frozenset({"identifier"}), extract, parse_value, extract_more)
