"""The OperationDefinitions of the operations that this server has (http://hl7.org/fhir/R4/operationdefinition.html).

Those of R4 are as HL7 published them.  Those of an implementation guide that the product does not hold say what follows from the
routes: the name, the types and the levels; the guide says the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from fhir_server.interactions.registry import REGISTRY, levels
from fhir_server.resources import published

_DATE = "2026-11-30"


@cache
def operation_definitions() -> Mapping[str, dict[str, Any]]:
    """Canonical URL -> OperationDefinition, of the operations in the registry."""
    known = published.operations()
    urls = dict.fromkeys(served.definition for served in REGISTRY if served.definition)
    return MappingProxyType({url: known[url] if url in known else _from_routes(url) for url in urls})


def _from_routes(url: str) -> dict[str, Any]:
    """The definition of an operation of another guide, as far as the routes say it."""
    routes = [served for served in REGISTRY if served.definition == url]
    types = sorted({served.shape[0] for served in routes if len(served.shape) > 1} - {"{type}"})
    name = routes[0].operation[1:]
    at = levels(url)
    return {
        "resourceType": "OperationDefinition",
        "id": url.rpartition("/")[2],
        "url": url,
        "name": "".join(part.capitalize() for part in url.rpartition("/")[2].split("-")),
        "title": f"${name}",
        "status": "active",
        "kind": "operation",
        "date": _DATE,
        "description": f"The operation ${name} as this server has it. Its parameters are those of {url}, which its guide publishes.",
        "affectsState": all(served.method != "GET" for served in routes),
        "code": name,
        "resource": types or ["Resource"],
        "system": "system" in at,
        "type": "type" in at,
        "instance": "instance" in at,
    }
