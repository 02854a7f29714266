"""The CapabilityStatement, made from the tables that the server runs on (http://hl7.org/fhir/R4/capabilitystatement.html).

It is the same for every caller, and says nothing that the code does not do.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import fhir_server
from fhir_server.clock import instant_text
from fhir_server.interactions.routing import ROUTES
from fhir_server.resources import catalog
from fhir_server.search import index

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_BULK = "http://hl7.org/fhir/uv/bulkdata"
_OPERATIONS = {
    "Patient": (
        ("everything", "http://hl7.org/fhir/OperationDefinition/Patient-everything"),
        ("export", f"{_BULK}/OperationDefinition/patient-export"),
    ),
    "Group": (("export", f"{_BULK}/OperationDefinition/group-export"),),
}
_CODES = tuple(dict.fromkeys(row.code for row in ROUTES if row.shape[0] == "{type}"))


def capability_statement(base: str, oauth: dict[str, str], now: int) -> dict[str, Any]:
    """The statement of a server at ``base`` whose OAuth endpoints (``authorize``, ``token``, ...) are ``oauth``."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant_text(now),
        "kind": "instance",
        "instantiates": [f"{_BULK}/CapabilityStatement/bulk-data"],
        "software": {"name": "fhir-server", "version": fhir_server.__version__},
        "implementation": {"description": "Patient-facing record", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": _security(oauth),
                "resource": [_resource(type) for type in sorted(catalog())],
                "interaction": [{"code": "batch"}, {"code": "transaction"}],
                "operation": [{"name": "export", "definition": f"{_BULK}/OperationDefinition/export"}],
            }
        ],
    }


def _security(oauth: dict[str, str]) -> dict[str, Any]:
    uris = [{"url": name, "valueUri": uri} for name, uri in sorted(oauth.items())]
    return {
        "cors": True,
        "service": [{"coding": [{"system": _SECURITY, "code": "SMART-on-FHIR"}]}],
        "extension": [{"url": _OAUTH_URIS, "extension": uris}],
        "description": "Every answer is computed as if what its caller may not see had never been written.",
    }


def _resource(type: str) -> dict[str, Any]:
    parameters = index.supported(type)
    references = [f"{type}:{one.code}" for one in parameters if one.kind == "reference"]
    resource: dict[str, Any] = {
        "type": type,
        "interaction": [{"code": code} for code in _CODES],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "not-match",
        "referencePolicy": ["literal", "enforced"],
        "searchInclude": references,
        "searchRevInclude": _pointing()[type],
        "searchParam": [{"name": one.code, "type": one.kind} for one in parameters],
    }
    if type in _OPERATIONS:
        resource["operation"] = [{"name": name, "definition": definition} for name, definition in _OPERATIONS[type]]
    return {name: value for name, value in resource.items() if value != []}


@cache
def _pointing() -> dict[str, list[str]]:
    """By type: the reference parameters of all types that may refer to it, as ``Type:code``."""
    parameters: dict[str, list[str]] = {type: [] for type in catalog()}
    for other in sorted(catalog()):
        for parameter in index.supported(other):
            for target in dict.fromkeys(parameter.targets) if parameter.kind == "reference" else ():
                parameters.setdefault(target, []).append(f"{other}:{parameter.code}")
    return parameters
