"""Labels somebody set on a resource: security labels, the minor-consent flag, the release date.

Security labels reach us only from callers with the right to set them; others' are taken off on the way in.
http://hl7.org/fhir/R4/security-labels.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import intervals
from fhir_server.consent.visibility_classes import LABELS, MC, PHYHOLD, PSYNOTE, UNCLASSIFIED

IG: Final = "https://fhir-server.example/ig"
_CATEGORY: Final = f"{IG}/CodeSystem/sensitive-category"
_CONFIDENTIALITY: Final = "Confidentiality"
_RESTRICTED: Final = frozenset({"R", "V"})
# v3 ActCode (sensitivity, refrain and law codes) -> our label
_ACT_CODES: Final = {
    "HIV": "HIV", "STD": "STD", "PREGNANT": "PREG",
    "BH": "MH", "MH": "MH", "PSY": "MH", "COGN": "MH", "DVD": "MH", "EMOTDIS": "MH",
    "PSYTHPN": PSYNOTE, "HIPAAPSYNOTES": PSYNOTE,
    "SUD": "SUD", "ETH": "SUD", "ETHUD": "SUD", "OPIOIDUD": "SUD", "42CFRPART2": "SUD",
    "SDV": "SEXAB", "VIO": "SEXAB", "MST": "SEXAB",
    "SEX": "REPRO", "GENDER": "REPRO", "GDIS": "GENETIC", "SCA": "GENETIC",
    "PHY": PHYHOLD, "TBOO": PHYHOLD, "NOPAT": PHYHOLD, "PRS": MC, "ADOL": MC,
}  # fmt: skip


def labels(resource: Mapping[str, Any]) -> frozenset[str]:
    """The labels that ``meta.security``, a document's ``securityLabel`` and the minor-consent flag call for.

    A confidentiality of R or V without a reason we understand is a reason nobody has classified.
    """
    found: set[str] = set()
    restricted = False
    documented = [coding for concept in resource.get("securityLabel", ()) for coding in concept.get("coding", ())]
    for coding in (*resource.get("meta", {}).get("security", ()), *documented):
        system, code = str(coding.get("system", "")), str(coding.get("code", "")).strip()
        if system == _CATEGORY and code in LABELS:
            found.add(code)
        elif _CONFIDENTIALITY in system:
            restricted = restricted or code.upper() in _RESTRICTED
        elif code.upper() in _ACT_CODES:
            found.add(_ACT_CODES[code.upper()])
    if any(one.get("valueBoolean") is True for one in _extensions(resource, "minor-consented")):
        found.add(MC)
    return frozenset(found or ({UNCLASSIFIED} if restricted else ()))


def release_at(resource: Mapping[str, Any], zone: ZoneInfo) -> int:
    """The instant before which the resource is held back (0: none); an unreadable one never comes."""
    spoken = [intervals.span(str(one.get("valueInstant")), zone) for one in _extensions(resource, "release-at")]
    return max((span[0] if span else MAX_INSTANT for span in spoken), default=0)


def _extensions(resource: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [one for one in resource.get("extension", ()) if one.get("url") == f"{IG}/StructureDefinition/{name}"]
