"""Where a resource says that it, or a part of it, was entered in error: the elements that R4 binds to a code for this.

Most types have ``status``; Goal has ``lifecycleStatus``, AllergyIntolerance and Condition have ``verificationStatus``, DocumentReference
has ``docStatus``, too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions, elements

ENTERED_IN_ERROR: Final = "entered-in-error"


@functools.cache
def elements_of_error(type: str) -> tuple[str, ...]:
    """Return the paths, without the type, of the elements of which a required code says that something was entered in error."""
    return tuple(
        element.path.partition(".")[2]
        for element in definitions.elements(type)
        if element.codes and any(ENTERED_IN_ERROR in codes for codes in element.codes.values())
    )


def entered_in_error(resource: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the path of each part that was entered in error; ``()`` for the resource itself."""
    for path in elements_of_error(str(resource.get("resourceType"))):
        for place, value in elements.at(resource, path):
            if _says_error(value):
                yield () if "." not in path else _item(place)


def _item(place: Path) -> Path:
    """Return the item of the resource's array in which a place is, or else its first element."""
    return place[:2] if isinstance(place[1], int) else place[:1]


def _says_error(value: Any) -> bool:
    if not isinstance(value, dict):
        return bool(value == ENTERED_IN_ERROR)
    codings = value.get("coding")
    return isinstance(codings, list) and any(isinstance(each, dict) and each.get("code") == ENTERED_IN_ERROR for each in codings)
