"""The TerminologyCapabilities of ``GET metadata?mode=terminology`` (http://hl7.org/fhir/R4/terminologycapabilities.html)."""

from __future__ import annotations

from typing import Any

from fhir_server.clock import instant_text


def terminology_capabilities(base: str, now: int) -> dict[str, Any]:
    """What the server at ``base``, which started at the instant ``now``, does with terminology; the same for all callers."""
    return {
        "resourceType": "TerminologyCapabilities",
        "status": "active",
        "date": instant_text(now),
        "kind": "instance",
        "implementation": {"description": "Patient-facing record", "url": base},
    }
