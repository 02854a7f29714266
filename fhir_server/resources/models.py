"""Gives access to the models of ``fhir.resources``, with which the server builds and reads resources in Python.

No other module imports that library. The models are not for resources that clients send or receive: they accept wrong codes and
rewrite decimals and dates. They are the models of R4B; the types that the server uses are the same in R4.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def model(name: str) -> Any:
    """The model class of a resource type or datatype, imported on first use.  Raises KeyError if R4B does not have it."""
    if not name.isidentifier():
        raise KeyError(name)
    try:
        return getattr(importlib.import_module(f"fhir.resources.R4B.{name.lower()}"), name)
    except (ModuleNotFoundError, AttributeError):
        raise KeyError(name) from None
