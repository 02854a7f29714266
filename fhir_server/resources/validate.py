"""Validates R4 resources against HL7's definitions (http://hl7.org/fhir/R4/validation.html).

Covers structure, cardinality, primitive values, choices, required bindings, reference targets, contained and bundled resources,
extensions, narrative and the error invariants (:data:`fhir_server.resources.invariants.NOT_ENFORCED` lists the rest).
Profiles are checked elsewhere (:mod:`fhir_server.profiles`); bindings weaker than required are not.
"""

from __future__ import annotations

from typing import Any

from fhir_server.errors import Issue
from fhir_server.resources._compile import resource_shape
from fhir_server.resources.validation_run import TooManyIssuesError, ValidationRun


def check(name: str, resource: Any) -> tuple[Issue, ...]:
    """The issues of a resource of type ``name``, as :func:`fhir_server.jsontext.parse` returns it; () if it is valid.

    At most 50 issues, each with a FHIRPath expression into the resource; messages quote nothing but the caller's text.
    Raises KeyError if R4 does not have the type; no resource makes it raise anything else.
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
        return (*run.issues[:49], Issue("structure", "The resource is nested too deeply.", (name,)))
    return tuple(run.issues)
