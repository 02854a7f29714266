"""References in a Bundle that is stored as one resource: a document, a message, a collection.

A Bundle is complete in itself: its references are read against the fullUrls of its entries, and what it does not contain need not be
here.  Only a reference that names this server must resolve.  http://hl7.org/fhir/R4/bundle.html#references
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.resources.references import parse_reference, restful
from fhir_server.resources.server_base import ServerBase, server_base
from fhir_server.writing.references import found_references


def local_targets(bundle: Mapping[str, Any], base: str) -> frozenset[str]:
    """The ``Type/id`` of this server, whose FHIR base URL is ``base``, that a valid Bundle refers to and does not contain."""
    return frozenset(_local_targets(bundle, server_base(base)))


def _local_targets(bundle: Mapping[str, Any], server: ServerBase) -> Iterator[str]:
    entries = bundle.get("entry", [])
    own = [server.relative(str(entry.get("fullUrl", ""))) for entry in entries]
    contained = set(own)
    for entry, name in zip(entries, own, strict=True):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "Bundle":
            yield from _local_targets(resource, server)
        else:
            is_own = name is not None and restful(f"{server.base}/{name}") is not None
            yield from _named(resource, is_own, contained, server)
    rest = {name: value for name, value in bundle.items() if name != "entry"}
    yield from _named(rest, False, contained, server)


def _named(value: Any, reads_relative: bool, contained: set[str | None], server: ServerBase) -> Iterator[str]:
    for found in found_references(value):
        relative = server.relative(found.text)
        reference = parse_reference(found.text if relative is None else relative)
        if reference is not None and reference.kind == "relative" and (relative is not None or reads_relative):
            name = f"{reference.type}/{reference.id}"
            if name not in contained:
                yield name
