"""The OpenAPI 3.1 document of the FHIR API, made from the registry (https://spec.openapis.org/oas/v3.1.0).

Without a parameter it has one path for all types.  ``?type=Observation`` gives the paths of one type, with its search parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import fhir_server
from fhir_server.errors import KINDS, Problem
from fhir_server.interactions.messages import ANY, NDJSON
from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.interactions.patch import FORMATS as PATCH_FORMATS
from fhir_server.interactions.registry import JSON_DOCUMENT, REGISTRY, Served
from fhir_server.interactions.wording import successes, summary
from fhir_server.resources import catalog, definitions
from fhir_server.search import index
from fhir_server.search.custom_parameters import CustomParameters, current
from fhir_server.search.result_parameters import CONTROLS
from fhir_server.search.suggestions import suggestion

_FHIR: Final = ("application/fhir+json", "application/fhir+xml")
_FORM: Final = "application/x-www-form-urlencoded"
_SEARCHES: Final = frozenset({"search-type", "search-system", "search-compartment"})
# Types of an operation's parameters whose values fit in a URL.
_SIMPLE: Final = frozenset(
    {"string", "code", "uri", "url", "canonical", "id", "boolean", "integer", "decimal", "date", "dateTime", "instant", "time"}
)
_SCHEMAS: Final = {"boolean": {"type": "boolean"}, "integer": {"type": "integer"}, "decimal": {"type": "number"}}
_HEADERS: Final = {
    "Prefer": "return=minimal|representation|OperationOutcome, handling=strict|lenient (RFC 7240)",
    "If-Match": "ETag of the version that the change is about (RFC 9110)",
    "If-None-Match": "ETag that the client has: 304 if it is current (RFC 9110)",
    "If-None-Exist": "Search parameters: nothing is created if a resource matches",
}
_HEADERS_OF: Final = {
    "read": ("If-None-Match",), "vread": ("If-None-Match",), "capabilities": ("If-None-Match",), "create": ("Prefer", "If-None-Exist"),
    "update": ("Prefer", "If-Match"), "patch": ("Prefer", "If-Match"), "delete": ("If-Match",), **dict.fromkeys(_SEARCHES, ("Prefer",)),
}  # fmt: skip


def document(base: str, query: Sequence[tuple[str, str]]) -> bytes:
    """The document as JSON text.  Raises Problem ``invalid`` for a type that R4 does not have."""
    type = dict(query).get("type", "")
    if type and type not in catalog():
        raise Problem("invalid", f"R4 has no type {type[:80]!r}.{suggestion(type, catalog())}")
    return _text(base, type, current())


@lru_cache(32)
def _text(base: str, type: str, _: CustomParameters) -> bytes:
    return json.dumps(openapi(base, type), ensure_ascii=False, separators=(",", ":")).encode()


def openapi(base: str, type: str = "") -> dict[str, Any]:
    """The document of a server at ``base``, of one type if it is given."""
    paths: dict[str, dict[str, Any]] = {}
    for served in REGISTRY:
        if not type or (served.shape[:1] in (("{type}",), (type,)) and not served.public):
            shape = (type, *served.shape[1:]) if type else served.shape
            path = paths.setdefault("/" + "/".join(shape), {})
            path["parameters"] = [_reference("parameters", name) for name in _placeholders(shape)]
            path[served.method.lower()] = _operation(served, type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FHIR R4 API" + (f": {type}" if type else ""),
            "version": fhir_server.__version__,
            "description": "http://hl7.org/fhir/R4/http.html. Each answer is computed as if what the caller may not see did not exist. "
            "HEAD is answered wherever GET is, OPTIONS everywhere. "
            + ("" if type else "openapi.json?type=Observation gives the paths of one type, with its search parameters."),
        },
        "servers": [{"url": base}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": _components(),
    }


def _placeholders(shape: tuple[str, ...]) -> list[str]:
    return [segment[1:-1] for segment in shape if segment[:1] == "{"]


def _operation(served: Served, type: str) -> dict[str, Any]:
    parameters = [_reference("parameters", name) for name in ("_format", "_pretty")]
    parameters += [_reference("parameters", name) for name in _HEADERS_OF.get(served.code, ())]
    if served.code in _SEARCHES and served.method == "GET":
        parameters += [_query(code, note) for code, note in _search_parameters(type)] if type else []
        parameters += [_reference("parameters", "criteria")]
    elif served.conditional:
        parameters += [_reference("parameters", "criteria")]
    elif served.definition and served.method == "GET":
        parameters += [
            _query(one["name"], one.get("documentation", "").partition(". ")[0], one["type"])
            for one in _parameters_in_url(served.definition)
        ]
    operation: dict[str, Any] = {
        "operationId": _operation_id(served),
        "summary": summary(served),
        "tags": [_tag(served)],
        "parameters": [] if served.public and served.code != "capabilities" else parameters,
        "responses": {
            **{str(status): _success(served, status) for status in successes(served)},
            "4XX": _reference("responses", "Refused"),
            "503": _reference("responses", "Unavailable"),
        },
    }
    if served.code == "capabilities":
        operation["parameters"].append(_query("mode", "full, normative or terminology"))
    if served.body:
        operation["requestBody"] = {"content": {media: {"schema": _schema(served)} for media in _body_media(served)}}
    if served.public:
        operation["security"] = []
    return operation


def _operation_id(served: Served) -> str:
    words = [segment.strip("{}$_.").replace(".", "-") for segment in served.shape]
    return "-".join([served.method.lower(), *(word for word in words if word), *(["criteria"] if served.conditional else [])])


def _tag(served: Served) -> str:
    return "discovery" if served.public else served.operation or served.code


def _search_parameters(type: str) -> list[tuple[str, str]]:
    own = [(parameter.code, parameter.kind) for parameter in index.supported(type)]
    return own + [(code, "result parameter") for code in sorted(CONTROLS)]


def _parameters_in_url(url: str) -> list[dict[str, Any]]:
    """The parameters of an operation that a GET can have."""
    found = operation_definitions()[url].get("parameter", ())
    return [one for one in found if one["use"] == "in" and one.get("type") in _SIMPLE]


def _query(name: str, description: str, type: str = "string", among: Sequence[str] = ()) -> dict[str, Any]:
    schema = {"enum": list(among)} if among else _SCHEMAS.get(type, {"type": "string"})
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _body_media(served: Served) -> tuple[str, ...]:
    if served.is_raw:
        return (*_FHIR, ANY.decode())
    return (_FORM,) if served.body == "form" else PATCH_FORMATS if served.code == "patch" else _FHIR


def _schema(served: Served) -> dict[str, Any]:
    if served.body == "form":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {} if served.code == "patch" else _reference("schemas", "Resource")


def _success(served: Served, status: int) -> dict[str, Any]:
    if status in (202, 204, 304):
        return {"description": {202: "Accepted", 204: "No content", 304: "The client has the current version"}[status]}
    if served.media == NDJSON:
        return {"description": "OK", "content": {NDJSON.decode(): {"schema": {"type": "string"}}}}
    if served.media == JSON_DOCUMENT:
        return {"description": "OK", "content": {JSON_DOCUMENT.decode(): {"schema": {"type": "object"}}}}
    return {
        "description": "Created" if status == 201 else "OK",
        "content": {
            **{media: {"schema": _reference("schemas", "Resource")} for media in _FHIR},
            **({ANY.decode(): {}} if served.is_raw else {}),
        },
    }


def _reference(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _components() -> dict[str, Any]:
    types = sorted(catalog())
    path = {
        "type": {"enum": types},
        "compartment": {"enum": sorted(definitions.compartments())},
        "member": {"enum": ["*", *types]},
        "id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
        "version": {"type": "string"},
        "job": {"type": "string"},
        "file": {"type": "string"},
    }
    others = {name for served in REGISTRY for name in _placeholders(served.shape)} - path.keys()
    path |= {name: {"type": "string"} for name in sorted(others)}
    outcome = {media: {"schema": _reference("schemas", "OperationOutcome")} for media in _FHIR}
    statuses = sorted({f"{status} {code}" for status, code in KINDS.values()})
    return {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "An access token by SMART App Launch"}},
        "schemas": {
            "Resource": {"type": "object", "required": ["resourceType"], "properties": {"resourceType": {"type": "string"}}},
            "OperationOutcome": {
                "type": "object",
                "required": ["resourceType", "issue"],
                "properties": {"resourceType": {"const": "OperationOutcome"}, "issue": {"type": "array", "minItems": 1}},
            },
        },
        "responses": {
            "Refused": {"description": f"Refused; by status and issue code: {', '.join(statuses)}", "content": outcome},
            "Unavailable": {"description": "Busy, read-only or too costly; Retry-After says when to ask again", "content": outcome},
        },
        "parameters": {
            **{name: {"name": name, "in": "path", "required": True, "schema": schema} for name, schema in path.items()},
            "_format": _query("_format", "The format of the answer, in place of Accept", among=("json", "xml", *_FHIR)),
            "_pretty": _query("_pretty", "true: with line breaks", "boolean"),
            "criteria": {
                "name": "criteria",
                "in": "query",
                "style": "form",
                "explode": True,
                "description": "Search parameters of the type, each by its own name (http://hl7.org/fhir/R4/search.html)",
                "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            **{name: {"name": name, "in": "header", "description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        },
    }
