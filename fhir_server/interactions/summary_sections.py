"""The sections of an International Patient Summary (http://hl7.org/fhir/uv/ips/STU1.1/StructureDefinition-Composition-uv-ips.html).

As data: the code and title that the profile fixes, and which resources belong to the section.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from fhir_server.search.filters import AllOf, Filter, Has, Not, TokenIs


class Source(NamedTuple):
    """Resources of a section: a type, and the condition on its rows.  ``newest_of_each_code``: of these only the newest of each code."""

    type: str
    where: Filter
    newest_of_each_code: bool = False


class Section(NamedTuple):
    """One section.  ``required``: it stands there without entries, too."""

    code: str
    display: str
    title: str
    sources: tuple[Source, ...]
    required: bool = False


def _is_not(param: str, *codes: str) -> Filter:
    """The value of ``param`` is none of these."""
    return AllOf(tuple([Not(Has(param, TokenIs(None, code))) for code in codes]))


_WRONG: Final = "entered-in-error"
_CURRENT: Final = AllOf(
    (_is_not("clinical-status", "inactive", "resolved", "remission"), _is_not("verification-status", _WRONG, "refuted"))
)

SECTIONS: Final[tuple[Section, ...]] = (
    Section(
        "11450-4", "Problem list - Reported", "Problems",
        (Source("Condition", _CURRENT),), True,
    ),
    Section(
        "48765-2", "Allergies and adverse reactions Document", "Allergies and intolerances",
        (Source("AllergyIntolerance", _CURRENT),), True,
    ),
    Section(
        "10160-0", "History of Medication use Narrative", "Medications",
        (
            Source("MedicationStatement", _is_not("status", _WRONG, "completed", "stopped", "not-taken")),
            Source("MedicationRequest", _is_not("status", _WRONG, "completed", "stopped", "cancelled", "draft")),
        ), True,
    ),
    Section("11369-6", "History of Immunization Narrative", "Immunizations", (Source("Immunization", _is_not("status", _WRONG)),)),
    Section(
        "30954-2", "Relevant diagnostic tests/laboratory data Narrative", "Results",
        (Source("Observation", AllOf((Has("category", TokenIs(None, "laboratory")), _is_not("status", _WRONG, "cancelled"))), True),),
    ),
    Section("47519-4", "History of Procedures Document", "Procedures", (Source("Procedure", _is_not("status", _WRONG, "not-done")),)),
    Section("46264-8", "History of medical device use", "Medical devices", (Source("DeviceUseStatement", _is_not("status", _WRONG)),)),
    Section(
        "8716-3", "Vital signs", "Vital signs",
        (Source("Observation", AllOf((Has("category", TokenIs(None, "vital-signs")), _is_not("status", _WRONG, "cancelled"))), True),),
    ),
)  # fmt: skip
