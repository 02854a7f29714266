"""Removes what deleted rows have left in unused parts of a store's files, as far as the store can do that."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fhir_server.store import Store


async def remove_remnants(store: Store, url: str) -> str:
    """Remove what is left in the files of the store at ``url``.  Return what remains, as a sentence; "" if nothing does."""
    try:
        module: Any = import_module(f"fhir_server.store.{url.partition(':')[0].partition('+')[0]}.erasing")
    except ModuleNotFoundError:
        return "MongoDB's own journal and storage files hold erased content until it writes over it."
    remains: str = await module.remove_remnants(store)
    return remains
