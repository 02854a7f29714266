"""The user-access brands Bundle: this organization and its endpoint, for apps in which people look for their hospital.

https://hl7.org/fhir/smart-app-launch/STU2.2/brands.html, profiles user-access-brands-bundle, user-access-brand and
user-access-endpoint.
"""

from __future__ import annotations

from typing import Any, Final

from fhir_server.clock import instant_text
from fhir_server.smart.core.context import SmartContext

PATH: Final = "/user-access-brands.json"
_EXTENSION: Final = "http://hl7.org/fhir/StructureDefinition"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_PROFILE: Final = "http://hl7.org/fhir/smart-app-launch/StructureDefinition"
_ORGANIZATION: Final = "brand"
_ENDPOINT: Final = "endpoint"


def identifier(smart: SmartContext) -> dict[str, str]:
    """``user_access_brand_identifier`` of the SMART configuration: the identifier of the only brand in the Bundle."""
    return {"system": "urn:ietf:rfc:3986", "value": smart.origin}


def bundle(smart: SmartContext, now: int) -> dict[str, Any]:
    """An R4 Bundle of type collection with the timestamp ``now``."""
    resources = (_brand(smart), _endpoint(smart))
    return {
        "resourceType": "Bundle",
        "meta": {"profile": [f"{_PROFILE}/user-access-brands-bundle"]},
        "type": "collection",
        "timestamp": instant_text(now),
        "entry": [
            {"fullUrl": f"{smart.fhir_base}/{resource['resourceType']}/{resource['id']}", "resource": resource} for resource in resources
        ],
    }


def _brand(smart: SmartContext) -> dict[str, Any]:
    endpoint = {"reference": f"Endpoint/{_ENDPOINT}"}
    portal = [
        {"url": "portalName", "valueString": smart.organization},
        {"url": "portalUrl", "valueUrl": f"{smart.origin}/"},
        {"url": "portalEndpoint", "valueReference": endpoint},
    ]
    return {
        "resourceType": "Organization",
        "id": _ORGANIZATION,
        "meta": {"profile": [f"{_PROFILE}/user-access-brand"]},
        "extension": [
            {"url": f"{_EXTENSION}/organization-brand", "extension": [{"url": "brandLogo", "valueUrl": f"{smart.origin}/static/logo.svg"}]},
            {"url": f"{_EXTENSION}/organization-portal", "extension": portal},
        ],
        "identifier": [identifier(smart)],
        "active": True,
        "type": [{"coding": [{"system": f"{_TERMINOLOGY}/organization-type", "code": "prov"}]}],
        "name": smart.organization,
        "telecom": [{"system": "url", "value": f"{smart.origin}/"}],
        "endpoint": [endpoint],
    }


def _endpoint(smart: SmartContext) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": _ENDPOINT,
        "meta": {"profile": [f"{_PROFILE}/user-access-endpoint"]},
        "extension": [{"url": f"{_EXTENSION}/endpoint-fhir-version", "valueCode": "4.0.1"}],
        "status": "active",
        "connectionType": {"system": f"{_TERMINOLOGY}/endpoint-connection-type", "code": "hl7-fhir-rest"},
        "name": smart.organization,
        "contact": [{"system": "url", "value": f"{smart.origin}/register-app"}],
        "payloadType": [{"coding": [{"system": f"{_TERMINOLOGY}/endpoint-payload-type", "code": "none"}]}],
        "address": smart.fhir_base,
    }
