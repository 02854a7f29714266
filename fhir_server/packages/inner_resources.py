"""The resources inside a resource: those that it contains, and those in a Bundle's entries and in Parameters.

http://hl7.org/fhir/R4/references.html#contained, http://hl7.org/fhir/R4/bundle.html, http://hl7.org/fhir/R4/parameters.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fhir_server.resources.validation_run import Place, ValidationRun

_HOLDERS: Final = frozenset({"Bundle", "Parameters"})


def claims_of(value: Mapping[str, Any]) -> tuple[str, ...]:
    """The profiles that a resource claims for itself."""
    claimed = value.get("meta", {}).get("profile", ())
    return tuple([claim for claim in claimed if isinstance(claim, str)])


class PlacedResource(NamedTuple):
    """A resource, where it is in the one that was sent, and the resource that contains it, if one does."""

    value: Mapping[str, Any]
    place: Place
    container: Mapping[str, Any] | None = None

    @property
    def type(self) -> str:
        """Its resource type."""
        return str(self.value.get("resourceType"))

    @property
    def claims(self) -> tuple[str, ...]:
        """The profiles that it claims."""
        return claims_of(self.value)

    def run(self) -> ValidationRun:
        """A validation of it: in FHIRPath a contained resource has its container as %rootResource."""
        if self.container is None:
            return ValidationRun(self.value)
        return ValidationRun(self.container).within(self.value, contained=True)


def with_inner(value: Mapping[str, Any]) -> Iterator[PlacedResource]:
    """A valid resource and all resources inside it, in the order of their places."""
    waiting = [PlacedResource(value, (None, str(value.get("resourceType")), -1))]
    while waiting:
        outer = waiting.pop()
        yield outer
        waiting += reversed([*_inside(outer)])


def any_claims(value: Mapping[str, Any]) -> bool:
    """Whether a valid resource or a resource inside it claims a profile."""
    if "contained" not in value and value.get("resourceType") not in _HOLDERS:
        return bool(claims_of(value))
    return any(one.claims for one in with_inner(value))


def _inside(outer: PlacedResource) -> Iterator[PlacedResource]:
    for index, inner in enumerate(outer.value.get("contained", ())):
        yield PlacedResource(inner, (outer.place, "contained", index), outer.value)
    if outer.type == "Bundle":
        for index, entry in enumerate(outer.value.get("entry", ())):
            place = (outer.place, "entry", index)
            yield from _member(entry, "resource", place)
            yield from _member(entry.get("response", {}), "outcome", (place, "response", -1))
    if outer.type == "Parameters":
        yield from _parameters(outer.value.get("parameter", ()), "parameter", outer.place)


def _parameters(parameters: Any, name: str, outer: Place) -> Iterator[PlacedResource]:
    for index, parameter in enumerate(parameters):
        place = (outer, name, index)
        yield from _member(parameter, "resource", place)
        yield from _parameters(parameter.get("part", ()), "part", place)


def _member(holder: Mapping[str, Any], name: str, outer: Place) -> Iterator[PlacedResource]:
    if name in holder:
        yield PlacedResource(holder[name], (outer, name, -1))
