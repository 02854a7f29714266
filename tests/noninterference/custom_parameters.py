"""Two servers on which the search parameters of R4 are defined once more, as custom ones, and requests that use these.

Whatever the generated requests ask by an R4 parameter, they then ask by its counterpart: values of hidden elements and rows, ``:missing``,
sorting, chains, ``_has``, includes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

from fhir_server.resources import definitions
from fhir_server.search import parameter_definitions
from fhir_server.search.custom_parameters import CustomParameters, in_use
from fhir_server.writing.indexing_steps import index_all
from tests.noninterference.case_generator import Case
from tests.noninterference.comparison import Twins
from tests.noninterference.paired_server import BASE, MINUTE, NOW, SECOND, World, Write
from tests.noninterference.request_generator import Asker, Capability

MARK = "x-"


def counterpart(code: str) -> str:
    """The code of the custom parameter that says the same as an R4 parameter, with its modifier."""
    return MARK + code


@cache
def definitions_of(type: str) -> tuple[dict[str, Any], ...]:
    """SearchParameters that say the same as R4's parameters of a type, where a SearchParameter can say it."""
    return tuple(_definitions(type))


def _definitions(type: str) -> Iterator[dict[str, Any]]:
    for one in definitions.search_parameters(type):
        made = {
            "resourceType": "SearchParameter", "id": f"{MARK}{type}-{one.code.strip('_')}"[:64], "url": f"http://x.example/{type}/{one.code}",
            "name": "X", "status": "active", "description": "As in R4.", "code": counterpart(one.code), "base": [type], "type": one.kind,
            "expression": one.expression, **({"target": [*one.targets]} if one.targets else {}),
        }  # fmt: skip
        try:
            parameter_definitions.read(made)
        except ValueError:
            continue
        yield made


def types_of(case: Case) -> tuple[str, ...]:
    """The types of the rows of a case."""
    return tuple(sorted({write.type for number in (0, 1) for write in case.writes(number)}))


async def define(world: World, types: Iterable[str]) -> None:
    """Define the counterparts of the parameters of these types, and index what is stored."""
    for type in types:
        for made in definitions_of(type):
            await world.write(Write(NOW - 60 * MINUTE, "SearchParameter", made["id"], made))
    await index_all(world.parts.store, world.parts.labeler, BASE, lambda: NOW - SECOND)


class CustomAsker(Asker):
    """Generates requests by custom parameters."""

    def __init__(self, case: Case, capability: Capability, seed: int) -> None:
        known = {type: definitions_of(type) for type in types_of(case)}
        ready = frozenset(one for made in known.values() for resource in made for one in parameter_definitions.read(resource))
        with in_use(CustomParameters(ready)):
            super().__init__(case, _with_custom(capability, known), seed)
        codes = {(one.type, one.code) for one in ready}

        def renamed(type: str, param: str) -> str:
            own = counterpart(param)
            return own if (type, own.partition(":")[0]) in codes else param

        probes = self._probes
        self._probes = replace(
            probes,
            hidden={(type, renamed(type, param)): values for (type, param), values in probes.hidden.items()},
            shown={(type, renamed(type, param)): values for (type, param), values in probes.shown.items()},
            inner=tuple((type, renamed(type, param)) for type, param in probes.inner),
            pointers=tuple((type, renamed(type, param), target) for type, param, target in probes.pointers),
        )
        self._hidden_steps |= {(type, renamed(type, param), target) for type, param, target in self._hidden_steps}


def _with_custom(capability: Capability, known: dict[str, tuple[dict[str, Any], ...]]) -> Capability:
    found = copy(capability)
    found.params = {type: dict(params) for type, params in capability.params.items()}
    found.includes, found.revincludes = dict(capability.includes), dict(capability.revincludes)
    for type, made in known.items():
        found.params[type] |= {one["code"]: one["type"] for one in made}
        references = [one for one in made if one["type"] == "reference"]
        found.includes[type] = (*capability.includes[type], *(f"{type}:{one['code']}" for one in references))
        for one in references:
            for target in one["target"]:
                found.revincludes[target] = (*found.revincludes[target], f"{type}:{one['code']}")
    return found


class CustomTwins(Twins):
    """Two servers that differ in hidden data only and have the same custom search parameters."""

    asker: ClassVar[Any] = CustomAsker
    most_pages = 3000  # the definitions are in the history of the system, and in its searches

    async def open(self, without: frozenset[str] = frozenset(), lifetime: int = 60 * MINUTE) -> None:
        await super().open(without, lifetime)
        for world in self.worlds:
            await define(world, types_of(self.case))
