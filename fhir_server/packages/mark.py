"""The mark of a resource that comes from a package: a tag that names the package.  Such a resource is the operator's, and no client's."""

from __future__ import annotations

from typing import Any, Final

from fhir_server import jsontext
from fhir_server.errors import Problem

SYSTEM: Final = "https://fhir-server.example/ig/CodeSystem/package"
_NAME: Final = SYSTEM.encode()


def package_of(body: bytes) -> str:
    """The ``name#version`` of the package that a stored resource comes from; "" if it comes from none."""
    if _NAME not in body:
        return ""
    meta = jsontext.members(body).get("meta", b"{}")
    return _code(jsontext.parse(meta))


def require_of_client(body: bytes) -> None:
    """Require that a stored resource comes from no package.  Raises Problem ``forbidden``."""
    if package := package_of(body):
        raise Problem("forbidden", f"This resource comes from the package {package}; only the operator changes it.")


def require_no_mark(resource: dict[str, Any]) -> None:
    """Require that a resource that a client sends does not claim to come from a package.  Raises Problem ``forbidden``."""
    if _code(resource.get("meta", {})):
        raise Problem("forbidden", "Only the operator marks resources as those of a package.")


def _code(meta: dict[str, Any]) -> str:
    return next((str(tag.get("code", "")) for tag in meta.get("tag", ()) if tag.get("system") == SYSTEM), "")
