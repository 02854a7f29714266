"""Sample data that are no part of the project: generated patients and guides of others.  Tests that read them are skipped without.

What such a test promises is also tested with material of the project; the samples add more and stranger cases.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.served import ROOT

FOLDER = Path(os.environ.get("SAMPLE_DATA") or ROOT.parent / "shared" / "data")
SYNTHEA = "synthea/*.json.gz"
US_CORE = "packages/hl7.fhir.us.core-7.0.0.tgz"


def samples(pattern: str) -> list[Path]:
    """The files of the samples that match a pattern, by name; none without the samples."""
    return sorted(FOLDER.glob(pattern))


def needs_samples(pattern: str) -> pytest.MarkDecorator:
    """The mark of a test that reads these files."""
    return pytest.mark.skipif(not samples(pattern), reason=f"no {pattern} here; SAMPLE_DATA names the folder of the samples")
