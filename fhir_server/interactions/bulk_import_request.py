"""Parses the kick-off of ``$import``: which files of which types (https://github.com/smart-on-fhir/bulk-import/blob/master/import.md).

The request is a Parameters resource with the parameters of the draft's manifest, as the servers that have ``$import`` take it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.interactions.messages import Request
from fhir_server.resources import catalog
from fhir_server.web.public_fetch import Hosts, is_allowed
from fhir_server.writing.writer import rank

MAX_FILES: Final = 1000
_FORMATS: Final = frozenset({"application/fhir+ndjson", "application/ndjson", "ndjson"})
_NAMES: Final = frozenset({"inputFormat", "inputSource", "storageDetail", "input"})
_NOT_PARAMETERS: Final = "$import requires a Parameters resource with inputs, each with a type and a url."


class ImportFile(msgspec.Struct, frozen=True):
    """A file of resources of one type, as NDJSON.  ``position``: its place among the inputs of the request."""

    type: str
    url: str
    position: int = 0


def parse(request: Request, hosts: Hosts) -> tuple[ImportFile, ...]:
    """The files to import, those of types that others refer to first.  Raises Problem ``invalid`` or ``media_type``."""
    request.require_json()
    resource = jsontext.parse(request.body) if request.body else None
    if request.query or not isinstance(resource, dict) or resource.get("resourceType") != "Parameters":
        raise Problem("invalid", _NOT_PARAMETERS)
    files: list[ImportFile] = []
    for name, parameter in _named(resource.get("parameter")):
        if name not in _NAMES:
            raise Problem("invalid", f"$import does not support the parameter {name[:80]}. It has {', '.join(sorted(_NAMES))}.")
        if name == "input":
            files.append(_file(parameter, len(files), hosts))
        elif name == "inputFormat" and _value(parameter) not in _FORMATS:
            raise Problem("invalid", "inputFormat must be application/fhir+ndjson.")
        elif name == "storageDetail" and [_value(part) for _, part in _named(parameter.get("part"))] != ["https"]:
            raise Problem("invalid", "storageDetail must have the type https and nothing else.")
    if not 0 < len(files) <= MAX_FILES:
        raise Problem("invalid", f"$import takes 1 to {MAX_FILES} inputs.")
    return tuple(sorted(files, key=lambda file: rank(file.type)))


def _file(parameter: dict[str, Any], position: int, hosts: Hosts) -> ImportFile:
    parts = {name: _value(part) for name, part in _named(parameter.get("part"))}
    if set(parts) != {"type", "url"}:
        raise Problem("invalid", "Each input has a type and a url, and nothing else.")
    if parts["type"] not in catalog():
        raise Problem("invalid", f"{parts['type'][:80]} is not a resource type of R4.")
    if not is_allowed(parts["url"], hosts):
        raise Problem("invalid", "The url of an input must be an https URL without a fragment or credentials.")
    return ImportFile(parts["type"], parts["url"], position)


def _named(parameters: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(parameters, list) or not all(isinstance(one, dict) for one in parameters):
        raise Problem("invalid", _NOT_PARAMETERS)
    return [(str(one.get("name", "")), one) for one in parameters]


def _value(parameter: dict[str, Any]) -> str:
    return next((value for name, value in parameter.items() if name.startswith("value") and isinstance(value, str)), "")
