"""The input parameters of an operation, from the URL or from a Parameters resource (http://hl7.org/fhir/R4/operations.html#request)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.errors import Issue, Problem
from fhir_server.interactions import preconditions
from fhir_server.interactions.messages import JSON, Request, Response
from fhir_server.interactions.service import Service
from fhir_server.search.limits import MAX_PAIRS, require_searchable, whole_number
from fhir_server.search.suggestions import suggestion

_PRESENTATION: Final = ("_format", "_pretty")
_SIMPLE: Final = frozenset({"text", "texts", "flag", "number"})

Kinds = Mapping[str, str]
"""Parameter -> "text", "texts" (may repeat), "flag", "number", "Coding", "Codings" (may repeat), "CodeableConcept", "resource", or
"refused": R4 has it and the server does not follow it."""


def admit_reading(permissions: Permissions, type: str) -> None:
    """Require a scope to read or to search the type.  Raises Problem ``forbidden``."""
    if not permissions.scopes(type, "r") and not permissions.scopes(type, "s"):
        raise Problem("forbidden", f"The scopes of this access token do not cover reading {type}.")


class Asked:
    """What a request asks.  A value is a text, except for ``Coding``, ``CodeableConcept`` and ``resource``, which are JSON values."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._values: dict[str, list[Any]] = {}

    def add(self, name: str, value: Any) -> None:
        """Take a value.  Raises Problem ``invalid`` if the parameter may not have it, or not once more."""
        kind = self._kinds[name]
        if kind == "refused":
            text = f"The parameter {name!r} is not supported."
            raise Problem("invalid", text, (Issue("not-supported", text),))
        expected = str if kind in _SIMPLE else dict
        if not isinstance(value, expected) or value in ("", {}):
            raise Problem("invalid", f"The parameter {name!r} has no value of its type; a {kind} is sent in a Parameters resource.")
        if name in self._values and not kind.endswith("s"):
            raise Problem("invalid", f"The parameter {name!r} may not repeat.")
        if kind == "flag" and value not in ("true", "false"):
            raise Problem("invalid", f"The parameter {name!r} must be true or false.")
        if kind == "number" and whole_number(str(value)) is None:
            raise Problem("invalid", f"The parameter {name!r} must be a whole number.")
        self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """The text, or ""."""
        return str(self._values.get(name, [""])[0])

    def all(self, name: str) -> list[Any]:
        """All values, in order."""
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        """Whether the parameter is true."""
        return self.text(name) == "true"

    def number(self, name: str) -> int | None:
        """The number, or None."""
        return whole_number(self.text(name))

    def value(self, name: str) -> dict[str, Any] | None:
        """The Coding, CodeableConcept or resource, or None."""
        value: dict[str, Any] | None = self._values.get(name, [None])[0]
        return value

    def given(self) -> list[tuple[str, str]]:
        """The names and values of simple parameters, in order of their names."""
        return [(name, text) for name in sorted(self._values) if self._kinds[name] in _SIMPLE for text in self._values[name]]


async def read_parameters(request: Request, service: Service, kinds: Kinds, body_type: str = "") -> Asked:
    """The parameters of a request by GET or POST.

    The body may be the resource of type ``body_type`` itself, the only parameter that is a resource.  Raises Problem ``invalid``,
    ``media_type``, ``too_large`` or ``too_costly``.
    """
    preconditions.require_only(request)
    asked = Asked(kinds)
    require_searchable(request.query)
    for name, value in request.query:
        if name not in _PRESENTATION:
            _take(asked, name, value, kinds, request, service)
    if request.method == "POST" and request.body:
        request.require_json()
        draft = await service.parser.draft(request.body)
        if body_type and draft.type == body_type:
            asked.add(next(name for name, kind in kinds.items() if kind == "resource"), dict(draft.value))
        elif draft.type != "Parameters":
            raise Problem("invalid", "The operation takes a Parameters resource.")
        parameters = draft.value.get("parameter", ()) if draft.type == "Parameters" else ()
        if len(parameters) > MAX_PAIRS * 5:
            raise Problem("invalid", "There are too many parameters.")
        for parameter in parameters:
            _take(asked, str(parameter["name"]), _value(parameter), kinds, request, service)
    return asked


def _take(asked: Asked, name: str, value: Any, kinds: Kinds, request: Request, service: Service) -> None:
    if name in kinds:
        asked.add(name, value)
    elif service.is_strict(request):
        raise Problem("invalid", f"The operation has no parameter {name!r}.{suggestion(name, tuple(kinds))}")


def _value(parameter: Mapping[str, Any]) -> Any:
    """The value of a parameter: simple ones as texts."""
    if "resource" in parameter:
        return parameter["resource"]
    value = next((value for name, value in parameter.items() if name.startswith("value")), None)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def parameters_response(parameters: Iterable[dict[str, Any]]) -> Response:
    """An answer of these parameters."""
    return json_response({"resourceType": "Parameters", "parameter": list(parameters)})


def json_response(resource: dict[str, Any]) -> Response:
    """An answer of this resource."""
    return Response(200, jsontext.dumps(resource), ((b"content-type", JSON),))
