"""Search parameters of type ``string``: a prefix match without case or diacritics (http://hl7.org/fhir/R4/search.html#string)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Final, Literal

from fhir_server.search.escaping import unescape
from fhir_server.search.filters import TextIs
from fhir_server.search.limits import MAX_CONTAINED
from fhir_server.search.parameter_types._parameter_type import Found, ParameterType, ValueContext

# The indexed parts of HumanName and Address.
_PARTS = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country")


def fold(text: str) -> str:
    """The text without case and diacritics, with single spaces."""
    if not text.isascii():
        # Case folding can compose characters again (ŉ), so the text is decomposed before and after it.
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = "".join(char for char in text if not unicodedata.combining(char))
    return " ".join(text.casefold().split())


def extract(value: Any, base: str = "") -> Iterable[Found]:
    """(folded, exact) of a string, or of each part of a name or address."""
    if type(value) is str:
        return (((fold(value), value), ()),)
    return list(_parts(value)) if type(value) is dict else ()


def _parts(value: dict[str, Any]) -> Iterable[Found]:
    for name in _PARTS:
        part = value.get(name)
        if type(part) is str:
            yield (fold(part), part), (name,)
        elif type(part) is list:
            yield from (((fold(item), item), (name, i)) for i, item in enumerate(part) if type(item) is str)


_MODES: Final[dict[str, Literal["contains", "equal"]]] = {"contains": "contains", "equal": "equal"}


def parse_value(text: str, context: ValueContext) -> TextIs:
    """A prefix match, or by modifier ``exact`` (as written) or ``contains``; ``equal``, for ``_filter`` alone, compares the whole text."""
    value = unescape(text)
    if context.modifier == "exact":
        return TextIs(value, "exact")
    folded = fold(value)
    if not folded:
        raise ValueError("the text to look for is empty")
    if context.modifier == "contains" and len(folded) > MAX_CONTAINED:
        raise ValueError(f"a text to look for inside others has at most {MAX_CONTAINED} characters")
    return TextIs(folded, _MODES.get(context.modifier or "", "prefix"))


STRING = ParameterType("string", ("String", "Markdown"), frozenset({"exact", "contains"}), extract, parse_value)
