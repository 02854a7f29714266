"""Validation of R4 resources against HL7's definitions, on every write (http://hl7.org/fhir/R4/validation.html).

Covers structure, cardinality, primitive values, choices, required bindings, reference targets, contained and bundled resources,
extensions, narrative and the error invariants (:data:`fhir_server.resources.invariants.NOT_ENFORCED` lists the rest).
Profiles, and bindings weaker than required, are not judged.
"""

from __future__ import annotations

from typing import Any

from fhir_server.errors import Issue
from fhir_server.resources._compile import resource_shape
from fhir_server.resources._context import TooManyIssuesError, ValidationRun


def check(name: str, resource: Any) -> tuple[Issue, ...]:
    """What is wrong with a resource of type ``name``, as :func:`fhir_server.jsontext.parse` gave it; () when valid.

    At most 50 issues, each with a FHIRPath expression into the resource; texts quote only what the caller sent.
    Raises KeyError for a type that R4 does not have, and nothing for any resource.
    """
    compiled = resource_shape(name)
    if type(resource) is not dict:
        return (Issue("structure", "A resource is a JSON object.", (name,)),)
    if resource.get("resourceType") != name:
        return (Issue("structure", f"'resourceType' must be '{name}' here.", (f"{name}.resourceType",)),)
    run = ValidationRun(resource)
    try:
        compiled.check(resource, (None, name, -1), run)
    except TooManyIssuesError:
        pass
    except RecursionError:
        return (*run.issues[:49], Issue("structure", "The resource is nested too deep.", (name,)))
    return tuple(run.issues)
