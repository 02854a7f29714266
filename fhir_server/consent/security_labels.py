"""Reads the explicit labels of a resource: security labels, the minor-consented extension, the release date.

Trusted senders may set any ``meta.security``, a treating clinician the codes of :data:`RESTRAINT`; from others it is refused.
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
REPORTED_BY: Final = f"{IG}/CodeSystem/reported-by"
"""System of the tag that tells a person's statements from those of the institution; every reader of the row sees it."""

_PATIENT_SUPPLIED: Final = ("http://hl7.org/fhir/us/core/CodeSystem/us-core-tags", "patient-supplied")

ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
RESTRAINT: Final = frozenset({"PHY", "TBOO", "NOPAT"})
"""The v3-ActCodes by which a clinician withholds a resource from the patient side."""

_CATEGORY: Final = f"{IG}/CodeSystem/sensitive-category"
_ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_CONFIDENTIALITY: Final = "Confidentiality"
_RESTRICTED: Final = frozenset({"R", "V"})
# v3 ActCode (sensitivity, refrain and law codes) -> label
_ACT_CODES: Final = {
    "HIV": "HIV", "STD": "STD", "PREGNANT": "PREG",
    "BH": "MH", "MH": "MH", "PSY": "MH", "COGN": "MH", "DVD": "MH", "EMOTDIS": "MH",
    "PSYTHPN": PSYNOTE, "HIPAAPSYNOTES": PSYNOTE,
    "SUD": "SUD", "ETH": "SUD", "ETHUD": "SUD", "OPIOIDUD": "SUD", "42CFRPART2": "SUD",
    "SDV": "SEXAB", "VIO": "SEXAB", "MST": "SEXAB",
    "SEX": "REPRO", "GENDER": "REPRO", "GDIS": "GENETIC", "SCA": "GENETIC",
    "PHY": PHYHOLD, "TBOO": PHYHOLD, "NOPAT": PHYHOLD, "PRS": MC, "ADOL": MC,
}  # fmt: skip


def is_persons_report(tag: Mapping[str, Any]) -> bool:
    """Whether a tag says that a patient or proxy supplied the resource: this server's mark, or that of US Core."""
    return tag.get("system") == REPORTED_BY or (tag.get("system"), tag.get("code")) == _PATIENT_SUPPLIED


def labels(resource: Mapping[str, Any]) -> frozenset[str]:
    """The labels in ``meta.security``, a document's ``securityLabel`` and the minor-consented extension.

    A confidentiality of R or V without a known sensitivity code gives UNCLASSIFIED.
    """
    found: set[str] = set()
    restricted = False
    codings = resource.get("meta", {}).get("security", ())
    if "securityLabel" in resource:
        codings = [*codings, *(coding for concept in resource["securityLabel"] for coding in concept.get("coding", ()))]
    for coding in codings:
        system, code = str(coding.get("system", "")), str(coding.get("code", "")).strip()
        if system == _CATEGORY and code in LABELS:
            found.add(code)
        elif _CONFIDENTIALITY in system:
            restricted = restricted or code.upper() in _RESTRICTED
        elif code.upper() in _ACT_CODES:
            found.add(_ACT_CODES[code.upper()])
    if any(extension.get("valueBoolean") is True for extension in _extensions(resource, "minor-consented")):
        found.add(MC)
    return frozenset(found or ({UNCLASSIFIED} if restricted else ()))


def is_restraint(coding: Mapping[str, Any]) -> bool:
    """Whether a security label is a clinician's restraint."""
    return coding.get("system") == ACT_CODE and coding.get("code") in RESTRAINT


def release_at(resource: Mapping[str, Any], zone: ZoneInfo) -> int:
    """The release date in microseconds since 1970 UTC: the resource is withheld before it (0: no date).

    A date that cannot be parsed never comes: :data:`~fhir_server.clock.MAX_INSTANT`.
    """
    dates = [intervals.interval(str(extension.get("valueInstant")), zone) for extension in _extensions(resource, "release-at")]
    return max((date[0] if date else MAX_INSTANT for date in dates), default=0)


def declassifies(resource: Mapping[str, Any]) -> bool:
    """Whether this version releases what earlier ones have lent: the v3-ActCode DECLASSIFYLABEL, which only trusted senders may set."""
    security = resource.get("meta", {}).get("security", ())
    return any(coding.get("system") == _ACT_CODE and coding.get("code") == "DECLASSIFYLABEL" for coding in security)


def _extensions(resource: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    if "extension" not in resource:
        return []
    url = f"{IG}/StructureDefinition/{name}"
    return [extension for extension in resource["extension"] if extension.get("url") == url]
