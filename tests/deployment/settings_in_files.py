"""Finds the environment variables that files of ``deploy/`` name, and those of them that are no settings."""

from __future__ import annotations

import re

from fhir_server.settings import FIELDS, SECRETS

OTHERS = {"FORWARDED_ALLOW_IPS"}  # of uvicorn; docs/settings.md names it
_NAMES = {f"FHIR_SERVER_{name.upper()}" for name in FIELDS} | {f"FHIR_SERVER_{name.upper()}_FILE" for name in SECRETS} | OTHERS


def named(text: str) -> set[str]:
    """The variables of the server that a text names."""
    return set(re.findall(r"\b(?:FHIR_SERVER|FORWARDED)_[A-Z_]+", text))


def unknown(text: str) -> set[str]:
    """Those that the server does not read.  One that ends in an underscore is the beginning of several."""
    return {name for name in named(text) if name not in _NAMES and not name.endswith("_")}
