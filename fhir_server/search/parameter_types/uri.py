"""Search parameters of type ``uri``: compared as written (http://hl7.org/fhir/R4/search.html#uri).

``:below`` finds a URL and what is below it (a longer path, a version, a fragment), ``:above`` a URL and what it is below. Both are for
URLs, not for URNs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from fhir_server.search.escaping import unescape
from fhir_server.search.filters import URL_ENDS, RefersTo, UnderUrl
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^/|#]+)(.*)", re.DOTALL)


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(uri,) of a string."""
    return (((value,), ()),) if type(value) is str else ()


def parse_value(text: str, context: ValueContext) -> RefersTo | UnderUrl:
    """The URI as written; by modifier ``below`` or ``above`` a URL and those below or above it."""
    uri = unescape(text)
    if not context.modifier:
        return RefersTo(frozenset({uri}))
    parts = _URL.fullmatch(uri)
    if parts is None:
        raise ValueError("with :above or :below it must be a URL")
    if context.modifier == "below":
        return UnderUrl(uri.rstrip("/"))
    return RefersTo(frozenset(_above(parts[1], parts[2].rstrip("/"))))


def _above(host: str, path: str) -> Iterator[str]:
    """The URL and those that it is below, each with and without a slash at its end."""
    cuts = [place for place, char in enumerate(path) if char in URL_ENDS] + [len(path)]
    for cut in dict.fromkeys([0, *cuts]):
        yield host + path[:cut]
        yield host + path[:cut] + "/"


URI = ParameterType("reference", ("Uri", "Url", "Canonical", "Oid", "Uuid"), frozenset({"above", "below"}), extract, parse_value)
