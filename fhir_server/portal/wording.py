"""Names of access levels and relationships on the pages."""

from __future__ import annotations

from typing import Final

# CodeSystem proxy-level, most used first
LEVELS: Final[dict[str, str]] = {
    "standard": "Standard",
    "full": "Full",
    "scheduling": "Visits only",
    "billing": "Bills only",
}

# v3-RoleCode: code -> (name on the page, display of the code system)
RELATIONSHIPS: Final[dict[str, tuple[str, str]]] = {
    "SPS": ("Husband, wife or partner", "spouse"),
    "PRN": ("Parent", "parent"),
    "CHILD": ("Son or daughter", "child"),
    "SIB": ("Brother or sister", "sibling"),
    "FAMMEMB": ("Other relative", "family member"),
    "FRND": ("Friend", "unrelated friend"),
}
