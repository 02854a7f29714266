"""What the interactions are called and how they answer, for the OpenAPI document and ``docs/api.md``."""

from __future__ import annotations

from typing import Final

from fhir_server.interactions.registry import Served

_SUMMARIES: Final = {
    "capabilities": "What the server can do",
    "smart-configuration": "SMART discovery",
    "openapi": "This API as an OpenAPI document",
    "transaction": "Batch or transaction",
    "read": "Read a resource",
    "vread": "Read a version of a resource",
    "history-instance": "The versions of a resource",
    "history-type": "The versions of the resources of a type",
    "history-system": "The versions of all resources",
    "search-type": "Search a type",
    "search-system": "Search several types",
    "search-compartment": "Search a compartment",
    "create": "Create a resource",
    "update": "Replace a resource",
    "patch": "Change parts of a resource",
    "delete": "Delete a resource",
}
_SUCCESSES: Final = {
    "capabilities": (200, 304),
    "smart-configuration": (200, 304),
    "openapi": (200, 304),
    "read": (200, 304),
    "vread": (200, 304),
    "create": (200, 201),
    "update": (200, 201),
    "delete": (200, 204),
    **dict.fromkeys(
        ("transaction", "search-type", "search-system", "search-compartment", "history-instance", "history-type", "history-system"),
        (200, 202),
    ),  # 202: Prefer: respond-async
}
# What an operation does at once and what it does later cannot be told from its route.
_OF_OPERATIONS: Final = (200, 202, 204, 304)


def summary(served: Served) -> str:
    """What an interaction does, in a few words."""
    text = _SUMMARIES.get(served.code) or f"Operation {served.operation or served.code}"
    return f"{text}, found by search parameters" if served.conditional else text


def successes(served: Served) -> tuple[int, ...]:
    """The statuses of answers that are no refusals."""
    if served.is_raw and served.method == "GET":
        return (200, 206, 304)
    return _SUCCESSES.get(served.code, _OF_OPERATIONS if served.operation else (200,))
