"""A change of the labeling code that labels a stored resource differently has a new LABELER_VERSION, so that stores are labeled again."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from fhir_server.consent import policy as policies
from fhir_server.consent.labeling_version import LABELER_VERSION, labeling_digest
from fhir_server.resources import catalog
from fhir_server.search.filters import EVERYTHING
from fhir_server.search.visibility import Visibility
from tests.served import ROOT, Served

# The labels of the demo records, by version.  If the test fails because labels changed on purpose, increase LABELER_VERSION (if only
# code changed) and write the new digest here.
# Versions 3 to 6 changed index entries alone.  With the demo records of version 5, version 6 has the digest of versions 2 to 5.
# Version 7 shows US Core's tag of a person's report, which no demo record has, and has further index entries.
_LABELS = {7: "8eab3f255aca21ef"}


async def labels_digest(served: Served) -> str:
    """A digest of class, release and labeled parts of each demo resource."""
    found = []
    async with served.parts.store.snapshot() as snapshot:
        classes = await snapshot.classes()
        for type in sorted(catalog()):
            page = await snapshot.find(type, EVERYTHING, Visibility.unrestricted(len(classes)), limit=10_000)
            for row in page.rows:
                parts = sorted((repr(element.path), classes[element.class_id]) for element in row.labeled_elements)
                guarded = sorted((repr(one.path), one.target) for one in row.guarded_references)
                found.append([row.type, row.id, classes[row.class_id], row.release_at, parts, guarded])
    return sha256(json.dumps(sorted(found)).encode()).hexdigest()[:16]


def test_demo_records_have_the_labels_of_this_labeler_version() -> None:
    served = Served()
    digest = served.run(labels_digest(served))
    served.close()
    assert _LABELS[LABELER_VERSION] == digest


def test_digest_changes_with_lists_and_redactions_alone(tmp_path: Path) -> None:
    optum, strict = policies.load("optum"), policies.load("strict")
    own = tmp_path / "own"
    own.mkdir()
    first = labeling_digest(optum, "", own)
    assert first == labeling_digest(optum) == labeling_digest(policies.load("optum", timezone="Europe/Berlin"))
    (own / "sensitive-x.json").write_bytes((ROOT / "ig/valuesets/sensitive-hiv.json").read_bytes())
    assert labeling_digest(optum, "", own) != first
    assert (labeling_digest(strict) == first) == ((strict.redactions, strict.holds) == (optum.redactions, optum.holds))
