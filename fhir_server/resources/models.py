"""Typed models for our own code: the only importer of ``fhir.resources``.

They are for reading and building resources in Python (Consent, AuditEvent, CapabilityStatement ...), not for the wire: they
accept wrong codes and rewrite digits and dates.  The models are R4B's, whose types we use are those of R4.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def model(name: str) -> Any:
    """The model class of a resource type or datatype, imported on first use; KeyError for one that R4B does not have."""
    if not name.isidentifier():
        raise KeyError(name)
    try:
        return getattr(importlib.import_module(f"fhir.resources.R4B.{name.lower()}"), name)
    except (ModuleNotFoundError, AttributeError):
        raise KeyError(name) from None
