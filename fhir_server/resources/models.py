"""Typed models for resources that the server itself creates or reads: the only importer of ``fhir.resources``.

Use them to build and read resources in Python (Consent, AuditEvent, CapabilityStatement ...), never for the bodies of API
requests and responses: they accept wrong codes and rewrite numbers and dates. The models are those of R4B. For the types
that this server uses, R4B and R4 are the same.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any


@functools.cache
def model(name: str) -> Any:
    """Return the model class of a resource type, a datatype or a backbone element (``ConsentProvision``).

    Imports it on first use, which takes a few tenths of a second. Raises KeyError for a name that R4B does not have.
    """
    if not name.isidentifier():
        raise KeyError(name)
    # A backbone element is in the module of its resource type: ConsentProvision in consent.
    for end in [len(name), *reversed([match.start() for match in re.finditer("[A-Z]", name)][1:])]:
        try:
            return getattr(importlib.import_module(f"fhir.resources.R4B.{name[:end].lower()}"), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise KeyError(name)
