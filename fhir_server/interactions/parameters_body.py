"""The parameters of an operation, from a Parameters resource in the body (http://hl7.org/fhir/R4/operations.html#request)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

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
    """The value of a parameter, as a query string would have it.  Raises Problem ``invalid`` for one that has none, or several."""
    match [value for name, value in parameter.items() if name.startswith("value")]:
        case [bool() as flag]:
            return "true" if flag else "false"
        case [str() | int() | Decimal() as value]:
            return str(value)
        case [{"coding": list() as codings}]:
            return ",".join([_token(coding) for coding in codings])
        case [{"code": str()} as coding]:
            return _token(coding)
        case [{"reference": str() as reference}]:
            return reference
    raise Problem("invalid", f"The parameter {str(parameter.get('name', ''))[:100]!r} has no value that could stand in a URL.")


def _token(coding: Any) -> str:
    match coding:
        case {"system": str() as system, "code": str() as code}:
            return f"{system}|{code}"
        case {"code": str() as code}:
            return code
    raise Problem("invalid", "A coding needs a code.")


class ResourceParameters(NamedTuple):
    """The JSON text of the parameter ``resource``, or None, and the others as texts."""

    resource: bytes | None
    texts: Mapping[str, str]


def resource_parameters(request: Request, type: str, names: Collection[str]) -> ResourceParameters:
    """The parameters of an operation that takes a resource of this type: in a Parameters resource, or as the body with others in the URL.

    ``names``  those besides ``resource``, each at most once

    Raises Problem ``invalid`` or ``media_type``.
    """
    request.require_json()
    try:
        members = jsontext.members(request.body)
        is_parameters = jsontext.parse(members.get("resourceType", b"null")) == "Parameters"
        given = [jsontext.members(text) for text in jsontext.items(members.get("parameter", b"[]"))] if is_parameters else []
        sent = [(str(jsontext.parse(one.get("name", b"null"))), one) for one in given]
    except msgspec.DecodeError:
        raise Problem("invalid", "The body is not a resource in JSON.") from None
    texts = [(name, _text({key: jsontext.parse(text) for key, text in one.items()})) for name, one in sent if name != "resource"]
    texts += [pair for pair in request.query if pair[0] not in ("_format", "_pretty")]
    resources = [one.get("resource") for name, one in sent if name == "resource"] if is_parameters else [request.body]
    found = [name for name, _ in texts]
    if len(resources) > 1 or len(set(found)) < len(found) or not set(found) <= set(names):
        raise Problem("invalid", f"{request.path[-1]} takes the parameters {', '.join(('resource', *names))}, each once.")
    return ResourceParameters(resources[0] if resources else None, dict(texts))
