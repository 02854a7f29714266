"""The bounds that a profile sets to values: least and greatest value, length (http://hl7.org/fhir/R4/elementdefinition.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fhir_server.resources.fhirpath_operators import comparable


def beyond(kind: str, limit: Any, value: Any) -> bool:
    """Whether a value is beyond ``minValue``, ``maxValue`` or ``maxLength``.  What cannot be compared is not."""
    return _TESTS[kind](limit, value)


def _is_less(limit: Any, value: Any) -> bool:
    one, other = comparable(value, limit)
    return one is not None and bool(one < other)


def _is_greater(limit: Any, value: Any) -> bool:
    one, other = comparable(value, limit)
    return one is not None and bool(one > other)


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "minValue": _is_less,
    "maxValue": _is_greater,
    "maxLength": lambda limit, value: isinstance(value, str) and len(value) > limit,
}
