"""HL7's R4 definitions, validation, and one declaration for each resource type.

A resource type is declared in a file of this folder that is named after it in lower case and holds ``TYPE = ResourceType(...)``. The
declarations of the other types are derived from HL7's definitions (:mod:`fhir_server.resources._default_declarations`).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from fhir_server.resources import _default_declarations, definitions
from fhir_server.resources._declaration import COMMON_DATA_CLASSES, ResourceType

__all__ = ["COMMON_DATA_CLASSES", "ResourceType", "catalog"]


@functools.cache
def catalog() -> Mapping[str, ResourceType]:
    """The declarations of all R4 resource types, by name, sorted.

    Raises ValueError if two files declare the same type or a file declares a type that R4 does not have, AttributeError if a
    file that is named after a type declares none.
    """
    declared = collect_declarations(_declarations_in_files())
    unknown = declared.keys() - set(definitions.types())
    if unknown:
        raise ValueError(f"not R4 resource types: {', '.join(sorted(unknown))}")
    return MappingProxyType({name: declared.get(name) or _default_declarations.declaration(name) for name in definitions.types()})


def collect_declarations(declarations: list[ResourceType]) -> dict[str, ResourceType]:
    """The declarations by name.  Raises ValueError if a name is declared twice."""
    declared: dict[str, ResourceType] = {}
    for declaration in declarations:
        if declaration.name in declared:
            raise ValueError(f"{declaration.name} is declared twice")
        declared[declaration.name] = declaration
    return declared


def _declarations_in_files() -> list[ResourceType]:
    names = {name.lower() for name in definitions.types()}
    files = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name in names)
    return [importlib.import_module(f"{__name__}.{file}").TYPE for file in files]
