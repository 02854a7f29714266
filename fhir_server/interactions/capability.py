"""The CapabilityStatement, generated from the server's own tables (http://hl7.org/fhir/R4/capabilitystatement.html).

It is the same for all callers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import fhir_server
from fhir_server.clock import instant_text
from fhir_server.interactions.patch import FORMATS
from fhir_server.interactions.registry import REGISTRY
from fhir_server.interactions.subscription_binding import socket_url
from fhir_server.interactions.subscription_records import TYPE as SUBSCRIPTION
from fhir_server.interactions.subscription_topics import topic_extensions
from fhir_server.packages.claims import NO_CLAIMS, Claims
from fhir_server.resources import catalog, definitions
from fhir_server.search import custom_parameters, index
from fhir_server.search.custom_parameters import CustomParameters

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_COMPARTMENT = "http://hl7.org/fhir/CompartmentDefinition"
_BULK = "http://hl7.org/fhir/uv/bulkdata"
_RAW = "Content is read and written as it is, too (http://hl7.org/fhir/R4/binary.html#rest)."
_WEBSOCKET = "http://hl7.org/fhir/StructureDefinition/capabilitystatement-websocket"
_SUBSCRIPTIONS = "Channels rest-hook and websocket; criteria are a search of one type, or a topic."
_OPERATIONS = tuple(dict.fromkeys((served.shape, served.definition) for served in REGISTRY if served.definition))
_CODES = tuple(dict.fromkeys(served.code for served in REGISTRY if served.shape[:1] == ("{type}",) and served.code != "operation"))
# http://hl7.org/fhir/R4/valueset-system-restful-interaction.html; one URL takes both kinds of Bundles
_OF_SYSTEM = frozenset({"transaction", "batch", "search-system", "history-system"})
# Names that any type can be the target of would be most of the statement, and ``*`` has them; US Core asks for one of them by name.
_BY_NAME = "Provenance:target"
# http://hl7.org/fhir/R4/resourcelist.html
_NORMATIVE = frozenset(
    {
        "Binary", "Bundle", "CapabilityStatement", "CodeSystem", "Observation", "OperationDefinition", "OperationOutcome",
        "Parameters", "Patient", "StructureDefinition", "ValueSet",
    }
)  # fmt: skip


def capability_statement(
    base: str, oauth: dict[str, str], now: int, claims: Claims = NO_CLAIMS, *, several_deletes: bool = False, normative: bool = False
) -> dict[str, Any]:
    """The statement of a server at ``base``.

    ``oauth`` holds the URLs of the OAuth endpoints by their names in the oauth-uris extension (``authorize``, ``token``, ...).
    ``claims``: what the packages in the store claim.  ``several_deletes``: a conditional delete may delete several resources.
    ``normative``: with R4's normative types only.
    """
    types = [type for type in sorted(catalog()) if not normative or type in _NORMATIVE]
    codes = dict.fromkeys(code for served in REGISTRY for code in _system_codes(served.code))
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant_text(now),
        "kind": "instance",
        "instantiates": list(dict.fromkeys((f"{_BULK}/CapabilityStatement/bulk-data", *claims.servers))),
        "software": {"name": "fhir-server", "version": fhir_server.__version__},
        "implementation": {"description": "Patient-facing record", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "application/fhir+xml", "json", "xml"],
        "patchFormat": list(FORMATS),
        "rest": [
            {
                "extension": [{"url": _WEBSOCKET, "valueUri": socket_url(base)}],
                "mode": "server",
                "security": _security(oauth),
                "resource": [_resource(type, claims.profiles_of(type), several_deletes) for type in types],
                "interaction": [{"code": code} for code in codes],
                "compartment": [f"{_COMPARTMENT}/{name[0].lower()}{name[1:]}" for name in definitions.compartments()],
                "operation": _operations(""),
            }
        ],
    }


def _system_codes(code: str) -> tuple[str, ...]:
    """The codes of the whole server's interactions that an interaction stands for."""
    return ("batch", "transaction") if code == "transaction" else (code,) if code in _OF_SYSTEM else ()


def _security(oauth: dict[str, str]) -> dict[str, Any]:
    uris = [{"url": name, "valueUri": uri} for name, uri in sorted(oauth.items())]
    return {
        "cors": True,
        "service": [{"coding": [{"system": _SECURITY, "code": "SMART-on-FHIR"}]}],
        "extension": [{"url": _OAUTH_URIS, "extension": uris}],
        "description": "The server computes each response as if data that the caller may not see did not exist.",
    }


def _resource(type: str, profiles: list[str], several_deletes: bool) -> dict[str, Any]:
    parameters = index.supported(type)
    includes = [f"{type}:{parameter.code}" for parameter in parameters if parameter.kind == "reference"]
    resource: dict[str, Any] = {
        "type": type,
        "supportedProfile": profiles,
        "interaction": [{"code": code} for code in _CODES],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": True,
        "conditionalDelete": "multiple" if several_deletes else "single",
        "referencePolicy": ["literal", "enforced"],
        "searchInclude": ["*", *includes],
        "searchRevInclude": ["*", _BY_NAME, *_reverse_includes()[type]],
        "searchParam": [{"name": parameter.code, "type": parameter.kind} for parameter in parameters],
    }
    if type == "Binary":
        resource["documentation"] = _RAW
    if type == SUBSCRIPTION:
        resource = _subscription(resource)
    resource["operation"] = _operations(type)
    return {name: value for name, value in resource.items() if value != []}


def _subscription(resource: dict[str, Any]) -> dict[str, Any]:
    """What of a type's capabilities Subscriptions have: they are no rows, have no history, and are written alone."""
    kept = ("type", "searchParam", "conditionalRead", "referencePolicy")
    return {
        **{name: resource[name] for name in kept},
        "extension": topic_extensions(),
        "interaction": [{"code": code} for code in ("read", "create", "update", "delete", "search-type")],
        "versioning": "no-version",
        "documentation": _SUBSCRIPTIONS,
    }


def _operations(type: str) -> list[dict[str, str]]:
    """The operations of a type, or ("") those of the whole server."""
    at = (type, "{type}") if type else ("",)
    found = {definition: shape[-1][1:] for shape, definition in _OPERATIONS if (shape[0] if shape[1:] else "") in at}
    return [{"name": name, "definition": definition} for definition, name in found.items()]


def _reverse_includes() -> dict[str, list[str]]:
    return _reverse_includes_with(custom_parameters.current())


@lru_cache(maxsize=4)
def _reverse_includes_with(_: CustomParameters) -> dict[str, list[str]]:
    """By type: the reference parameters that are about some types only, and whose targets include it, as ``Type:code``."""
    parameters: dict[str, list[str]] = {type: [] for type in catalog()}
    for other in sorted(catalog()):
        for parameter in index.supported(other):
            targets = dict.fromkeys(parameter.targets) if parameter.kind == "reference" else {}
            for target in targets if len(targets) < len(catalog()) // 2 else ():
                parameters.setdefault(target, []).append(f"{other}:{parameter.code}")
    return parameters
