"""The TerminologyCapabilities of ``GET metadata?mode=terminology`` (http://hl7.org/fhir/R4/terminologycapabilities.html)."""

from __future__ import annotations

from typing import Any

import fhir_server
from fhir_server.clock import instant_text
from fhir_server.interactions.expand import PARAMETERS
from fhir_server.terminology.shipped import code_systems


def terminology_capabilities(base: str, now: int) -> dict[str, Any]:
    """What the server at ``base``, which started at the instant ``now``, does with terminology; the same for all callers.

    It names the code systems that ship with the server, and none that is stored.
    """
    return {
        "resourceType": "TerminologyCapabilities",
        "name": "Terminology",
        "status": "active",
        "date": instant_text(now),
        "kind": "instance",
        "software": {"name": "fhir-server", "version": fhir_server.__version__},
        "implementation": {"description": "Patient-facing record", "url": base},
        "codeSystem": [
            {"uri": url, **({"version": [{"code": version}]} if version else {})} for url, version in sorted(code_systems().items())
        ],
        "expansion": {
            "hierarchical": False,
            "paging": True,
            "incomplete": False,
            "parameter": [{"name": name} for name, kind in sorted(PARAMETERS.items()) if kind != "refused"],
            "textFilter": "Each word of the filter must be in the code, its display or a designation, in whatever case.",
        },
        "codeSearch": "all",
        "validateCode": {"translations": True},
        "translation": {"needsMap": False},
        "closure": {"translation": False},
    }
