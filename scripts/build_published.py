"""Pack HL7's definitions for R4, as published in ``hl7.fhir.r4.core`` 4.0.1 (CC0) but without narrative, as one package.

The server serves them (``fhir-server package add hl7.fhir.r4.core``).  The source is that of ``r4_package.py``; the same source
gives the same bytes.  OperationDefinitions come first, because the server reads them at each start.

    python scripts/build_published.py [wheel-or-tgz] [--out FILE]
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from pathlib import Path

from r4_package import Json, documents, run

OUT = Path(__file__).parents[1] / "fhir_server" / "resources" / "r4" / "hl7.fhir.r4.core.tar.xz"
KINDS = ("OperationDefinition", "CompartmentDefinition", "SearchParameter", "StructureDefinition")


def build(package: Path) -> bytes:
    """The bytes of the packed definitions, from the wheel or the tgz."""
    found = sorted(documents(package, KINDS), key=lambda document: (KINDS.index(document["resourceType"]), document["id"]))
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
            document.pop("text", None)
            _add(archive, f"package/{document['resourceType']}-{document['id']}.json", document)
    return lzma.compress(out.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def _add(archive: tarfile.TarFile, name: str, document: Json) -> None:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o644
    archive.addfile(member, io.BytesIO(text))


if __name__ == "__main__":
    run(__doc__ or "", OUT, build)
