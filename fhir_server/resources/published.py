"""HL7's definitions for R4 as HL7 published them, without narrative: the package ``hl7.fhir.r4.core`` 4.0.1.

``scripts/build_published.py`` makes the file.  What the server decides by is in :mod:`~fhir_server.resources.definitions`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

FILE: Final = Path(__file__).parent / "r4" / "hl7.fhir.r4.core.tar.xz"
_OPERATION: Final = "package/OperationDefinition-"


@cache
def operations() -> Mapping[str, dict[str, Any]]:
    """Canonical URL -> OperationDefinition.  They are at the beginning of the file, and no more of it is read."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(FILE, "r|xz") as archive:
        for member in archive:
            if found and not member.name.startswith(_OPERATION):
                break
            if member.name.startswith(_OPERATION) and (file := archive.extractfile(member)) is not None:
                resource = json.load(file)
                found[resource["url"]] = resource
    return MappingProxyType(found)
