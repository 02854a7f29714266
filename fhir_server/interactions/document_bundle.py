"""A document Bundle: a Composition and what it is about (http://hl7.org/fhir/R4/documents.html).

Its identifier follows from its content as the caller sees it, so equal documents have equal ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from uuid import NAMESPACE_URL, uuid5

from fhir_server import budget
from fhir_server.access.view import View
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.clock import instant_text
from fhir_server.resources.references import versioned_target
from fhir_server.search.filters import IdIs
from fhir_server.writing.references import references

Entry = tuple[str, bytes]
"""The fullUrl and the JSON text of an entry's resource."""


def document(entries: Sequence[Entry], base: str, now: int, profile: str = "") -> list[bytes]:
    """The parts of the Bundle's JSON text.  The first entry is the Composition; its time is the one at which it is assembled."""
    digest = sha256()
    for url, text in entries:
        digest.update(url.encode() + b"\0" + text + b"\0")
    meta = b'"meta":{"profile":["%s"]},' % profile.encode() if profile else b""
    identifier = f"urn:uuid:{uuid5(NAMESPACE_URL, base + digest.hexdigest())}".encode()
    head = (
        b'{"resourceType":"Bundle",%s"identifier":{"system":"urn:ietf:rfc:3986","value":"%s"},"type":"document","timestamp":"%s","entry":['
        % (meta, identifier, instant_text(now).encode())
    )
    parts = [head]
    for number, (url, text) in enumerate(entries):
        parts += [b'%s{"fullUrl":"%s","resource":' % (b"," if number else b"", url.encode()), text, b"}"]
    return [*parts, b"]}"]


def entry(version: VisibleVersion, base: str) -> Entry:
    """The entry of a resource of this server."""
    return f"{base}/{version.type}/{version.id}", version.body


async def referred(view: View, versions: Iterable[VisibleVersion], types: frozenset[str] | None = None) -> list[VisibleVersion]:
    """The visible resources to which these refer, in the order of their names; of these types (None: all), and no others again."""
    sources = list(versions)
    own = {f"{version.type}/{version.id}" for version in sources}
    named = {text for found in await budget.each(lambda version: references(version.body), sources) for text in found}
    targets = {"/".join(target) for target in map(versioned_target, named) if target} - own
    found: list[VisibleVersion] = []
    for type in sorted({target.partition("/")[0] for target in targets}):
        if types is None or type in types:
            ids = frozenset(target.partition("/")[2] for target in targets if target.startswith(type + "/"))
            found += sorted(await view.find_included(type, IdIs(ids), len(ids)), key=lambda version: version.id)
    return found
