"""The routes of the terminology operations: (shape, handler, canonical URL of the OperationDefinition), each by GET and POST."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fhir_server.access.view import View
from fhir_server.interactions import code_questions, expand, translate
from fhir_server.interactions.messages import Request, Response
from fhir_server.interactions.service import Service

_R4: Final = "http://hl7.org/fhir/OperationDefinition"
Operation = tuple[tuple[str, ...], Callable[[View, Request, Service], Awaitable[Response]], str]


def _both(type: str, name: str, handler: Callable[[View, Request, Service], Awaitable[Response]]) -> tuple[Operation, ...]:
    """An operation of a type and of its instances."""
    definition = f"{_R4}/{type}-{name}"
    return ((type, f"${name}"), handler, definition), ((type, "{id}", f"${name}"), handler, definition)


OPERATIONS: Final[tuple[Operation, ...]] = (
    *_both("ValueSet", "expand", expand.expand),
    *_both("ValueSet", "validate-code", code_questions.validate_in_set),
    (("CodeSystem", "$lookup"), code_questions.lookup, f"{_R4}/CodeSystem-lookup"),
    *_both("CodeSystem", "validate-code", code_questions.validate_in_system),
    *_both("CodeSystem", "subsumes", code_questions.subsumes),
    *_both("ConceptMap", "translate", translate.translate),
)
