"""The parameters of an operation, from a Parameters resource in the body (http://hl7.org/fhir/R4/operations.html#request)."""

from __future__ import annotations

from typing import Any

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request


def parameters_in(request: Request) -> tuple[tuple[str, str], ...]:
    """The name and value pairs of the Parameters resource in the body, as a query string would have them; none without a body.

    Raises Problem ``invalid`` or ``media_type``.
    """
    if not request.body:
        return ()
    request.require_json()
    resource = jsontext.parse(request.body)
    parameters = resource.get("parameter", []) if isinstance(resource, dict) and resource.get("resourceType") == "Parameters" else None
    if not isinstance(parameters, list) or not all(isinstance(parameter, dict) for parameter in parameters):
        raise Problem("invalid", "An operation by POST requires a Parameters resource.")
    return tuple((str(parameter.get("name", "")), _text(parameter)) for parameter in parameters)


def _text(parameter: dict[str, Any]) -> str:
    value = next((value for name, value in parameter.items() if name.startswith("value")), "")
    if isinstance(value, dict) and "code" in value:
        return "|".join([str(value[name]) for name in ("system", "code") if name in value])
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.get("reference", "")) if isinstance(value, dict) else str(value)
