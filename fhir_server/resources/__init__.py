"""WHAT the data is: HL7's R4 definitions, validation, and one declaration a resource type.

A type's own file in this folder, named after it in lower case, holds a module-level ``TYPE = ResourceType(...)``; a type without
one gets a declaration made from the definitions and the table in :mod:`fhir_server.resources._default_declarations`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from fhir_server.resources import _default_declarations, definitions
from fhir_server.resources._declaration import ResourceType

__all__ = ["ResourceType", "catalogue"]


@functools.cache
def catalog() -> Mapping[str, ResourceType]:
    """Every R4 resource type's declaration, by name, sorted.

    Raises ValueError when two files declare one type, or a file declares a type that R4 does not have; AttributeError when a
    file named after a type declares nothing.
    """
    declared = collect_declarations(_scanned())
    unknown = declared.keys() - set(definitions.types())
    if unknown:
        raise ValueError(f"not R4 resource types: {', '.join(sorted(unknown))}")
    return MappingProxyType({name: declared.get(name) or _default_declarations.declaration(name) for name in definitions.types()})


def collect_declarations(found: list[ResourceType]) -> dict[str, ResourceType]:
    """The declarations by name; ValueError when a name is declared twice."""
    declared: dict[str, ResourceType] = {}
    for each in found:
        if each.name in declared:
            raise ValueError(f"{each.name} is declared twice")
        declared[each.name] = each
    return declared


def _scanned() -> list[ResourceType]:
    named = {name.lower() for name in definitions.types()}
    files = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name in named)
    return [importlib.import_module(f"{__name__}.{file}").TYPE for file in files]
