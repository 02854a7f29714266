"""Composite parameters of a MolecularSequence: a chromosome or reference sequence, and start and end of one variant of it.

http://hl7.org/fhir/R4/molecularsequence.html#search.  A sequence has one reference and many variants.  So the condition on the reference
is that of its own parameter, and each variant has one index entry with both of its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_server.search.parameter_types.number import finite_float
from fhir_server.search.rows import Entry

NAME: Final = "variant-coordinate"
"""The name of the index entries of variants."""

_TYPE: Final = "MolecularSequence"
REFERENCES: Final = {
    (_TYPE, "chromosome-variant-coordinate"): "chromosome",
    (_TYPE, "referenceseqid-variant-coordinate"): "referenceseqid",
}
"""The parameter of the reference, by (type, composite parameter)."""


def entries(type: str, resource: Mapping[str, Any]) -> Iterator[Entry]:
    """The index entries of the variants that have a start and an end, each with the path of the variant."""
    for place, variant in enumerate(resource.get("variant", ()) if type == _TYPE else ()):
        start, end = finite_float(variant.get("start")), finite_float(variant.get("end"))
        if start is not None and end is not None:
            yield Entry(NAME, "position", (end, 0.0, start), ("variant", place))
