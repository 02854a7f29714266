"""Brings the spellings of a code system and of its codes to one form, so that a coding is found in the lists however it is written.

A system is written as its URI, as ``urn:oid:``, with or without a version, a slash at the end, https, or capital letters.  Feeds
also pad codes with zeros, leave out dots, or write a CPT code with the system of HCPCS level II.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD: Final = "http://hl7.org/fhir/sid/icd-10-cm"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
NDC: Final = "http://hl7.org/fhir/sid/ndc"
CPT: Final = "http://www.ama-assn.org/go/cpt"
HCPCS: Final = "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
X12: Final = "https://x12.org/codes/service-type-codes"
REVENUE: Final = "https://www.nubc.org/CodeSystem/RevenueCodes"
PLACE: Final = "https://www.cms.gov/Medicare/Coding/place-of-service-codes/Place_of_Service_Code_Set"
NUCC: Final = "http://nucc.org/provider-taxonomy"
_HL7: Final = "http://terminology.hl7.org/CodeSystem/"

# The canonical URI of each system, and its other names.
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    LOINC: ("urn:oid:2.16.840.1.113883.6.1", "http://www.loinc.org"),
    SNOMED: ("urn:oid:2.16.840.1.113883.6.96", "http://snomed.info/id", "http://www.snomed.org", "http://snomed.info"),
    RXNORM: ("urn:oid:2.16.840.1.113883.6.88", "http://rxnorm.info", "http://purl.bioontology.org/ontology/rxnorm"),
    ICD: ("urn:oid:2.16.840.1.113883.6.90", "urn:oid:2.16.840.1.113883.6.3", "http://hl7.org/fhir/sid/icd-10",
          "http://www.cms.gov/medicare/coding/icd10"),
    "http://hl7.org/fhir/sid/icd-9-cm": ("urn:oid:2.16.840.1.113883.6.103", "urn:oid:2.16.840.1.113883.6.104"),
    CVX: ("urn:oid:2.16.840.1.113883.12.292", "urn:oid:2.16.840.1.113883.6.59", "http://www.cdc.gov/vaccines/cvx",
          "http://www2a.cdc.gov/vaccines/iis/iisstandards/vaccines.asp?rpt=cvx"),
    NDC: ("urn:oid:2.16.840.1.113883.6.69", "http://www.nlm.nih.gov/research/umls/ndc", "http://www.fda.gov/drugs/informationondrugs"),
    CPT: ("urn:oid:2.16.840.1.113883.6.12", "http://ama-assn.org/go/cpt", "http://www.nlm.nih.gov/research/umls/cpt"),
    HCPCS: ("urn:oid:2.16.840.1.113883.6.285", "urn:oid:2.16.840.1.113883.6.14", "http://www.nlm.nih.gov/research/umls/hcpcs",
            "http://terminology.hl7.org/codesystem/hcpcs-all-codes", "http://terminology.hl7.org/codesystem/hcpcs",
            "http://bluebutton.cms.gov/resources/codesystem/hcpcs"),
    X12: ("urn:oid:2.16.840.1.113883.6.255.1336", "http://codesystem.x12.org/005010/1365", "http://codesystem.x12.org/external/service-type"),
    REVENUE: ("urn:oid:2.16.840.1.113883.6.301.3", "http://terminology.hl7.org/codesystem/nubc-revenue-codes", "http://www.nubc.org"),
    PLACE: ("urn:oid:2.16.840.1.113883.6.50", "http://www.cms.gov/medicare/coding/place-of-service-codes",
            "http://terminology.hl7.org/codesystem/cms-place-of-service-codes", "http://terminology.hl7.org/codesystem/ex-serviceplace"),
    NUCC: ("urn:oid:2.16.840.1.113883.6.101", "http://www.nucc.org"),
    _HL7 + "v3-RoleCode": ("urn:oid:2.16.840.1.113883.5.111", "http://hl7.org/fhir/v3/rolecode"),
    _HL7 + "v3-ActCode": ("urn:oid:2.16.840.1.113883.5.4", "http://hl7.org/fhir/v3/actcode"),
    _HL7 + "v2-0276": ("urn:oid:2.16.840.1.113883.12.276", "http://hl7.org/fhir/v2/0276"),
    _HL7 + "service-type": ("http://hl7.org/fhir/service-type",),
    _HL7 + "service-category": ("http://hl7.org/fhir/service-category",),
}  # fmt: skip
_OID: Final = re.compile(r"\d+(\.\d+)+")
_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-") | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"))


@lru_cache(maxsize=16384)
def normalize_code(system: str, code: str) -> tuple[str, str]:
    """The canonical URI of the system and the code in one form: without version, white space and punctuation that means nothing.

    Codes are in upper case, ICD-10-CM without dots, numbers with the leading zeros that the system prescribes, an NDC with 11 digits.
    The system of a CPT or HCPCS code follows from the code: level II begins with a letter.  An unknown system keeps its spelling.
    """
    system = _system(system)
    code = code.translate(_DASHES).strip().partition("|")[0].strip().upper()
    if system == ICD:
        code = code.replace(".", "")
    elif system in (CPT, HCPCS):
        code = re.split(r"[-:\s]", code, maxsplit=1)[0]  # without modifiers
        system = HCPCS if code[:1].isalpha() else CPT
    elif system in (CVX, X12, RXNORM, SNOMED):
        code = code.lstrip("0") or "0"
    elif system == REVENUE:
        code = code.zfill(4)
    elif system == PLACE:
        code = code.zfill(2)
    elif system == NDC:
        code = _ndc(code)
    return system, code


def _key(system: str) -> str:
    """What two spellings of one system have in common."""
    key = system.strip().partition("|")[0].rstrip("/").lower()
    if key.startswith("https://"):
        key = "http://" + key[8:]
    return "urn:oid:" + key if _OID.fullmatch(key) else key


_CANONICAL: Final = {_key(name): uri for uri, names in _NAMES.items() for name in (uri, *names)}


def _system(system: str) -> str:
    key = _key(system)
    if key.startswith("http://snomed.info/sct"):  # with an edition and a version
        return SNOMED
    return _CANONICAL.get(key) or system.strip().partition("|")[0].rstrip("/")


def _ndc(code: str) -> str:
    """An NDC as 11 digits: the parts of its ten-digit form are padded to 5, 4 and 2."""
    parts = code.split("-")
    if len(parts) == 3 and all(part.isdecimal() for part in parts):
        return parts[0].zfill(5) + parts[1].zfill(4) + parts[2].zfill(2)
    return code.replace("-", "")
