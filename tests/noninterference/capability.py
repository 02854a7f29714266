"""What a CapabilityStatement says of searches, and the steps that chained parameters can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from fhir_server.search import index


class Capability:
    """The parts of the CapabilityStatement from which requests are generated."""

    def __init__(self, statement: dict[str, Any]) -> None:
        resources = {one["type"]: one for one in statement["rest"][0]["resource"]}
        self.types = tuple(resources)
        self.params = {type: {p["name"]: p["type"] for p in one.get("searchParam", ())} for type, one in resources.items()}
        self.includes = {type: tuple(one.get("searchInclude", ())) for type, one in resources.items()}
        self.revincludes = {type: tuple(one.get("searchRevInclude", ())) for type, one in resources.items()}
        compartments = {url.rpartition("/")[2] for url in statement["rest"][0]["compartment"]}
        self.compartments = frozenset(type for type in resources if type[0].lower() + type[1:] in compartments)


class Way(NamedTuple):
    """A step of a chain to ``type`` by reference ``param`` or, if it is reverse, of ``_has`` by that type's ``param``."""

    type: str
    param: str
    is_reverse: bool


def ways(type: str, types: tuple[str, ...]) -> Iterator[Way]:
    """The steps from one type to these types."""
    for code, parameter in index.parameters(type).items():
        if parameter.definition.kind == "reference":
            yield from (Way(target, code, False) for target in types if target in parameter.targets)
    for source in types:
        for code, parameter in index.parameters(source).items():
            if parameter.definition.kind == "reference" and type in parameter.targets:
                yield Way(source, code, True)
