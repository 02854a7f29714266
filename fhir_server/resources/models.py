"""Gives access to the models of ``fhir.resources``, with which the server builds and reads resources in Python.

No other module imports that library. The models are not for resources that clients send or receive: they accept wrong codes and
rewrite decimals and dates. They are the models of R4B; the types that the server uses are the same in R4.
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
