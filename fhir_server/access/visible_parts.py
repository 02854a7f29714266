"""Which parts of a row a caller does not see, and on which rows that depends."""

from __future__ import annotations

from fhir_server import jsontext
from fhir_server.access import version_numbers
from fhir_server.search.filters import AllOf, Filter, IdIs
from fhir_server.store import Row


def paths_to_remove(row: Row, admitted: frozenset[int], shown: frozenset[str]) -> list[jsontext.Path]:
    """The paths of the elements of a row whose class is not admitted, and of its references to hidden rows."""
    hidden = [element.path for element in row.labeled_elements if element.class_id not in admitted]
    return hidden + [reference.path for reference in row.guarded_references if reference.target not in shown and reference.path]


def guards(row: Row) -> list[str]:
    """The targets on which it depends what a caller sees of a row, and of its version numbers."""
    found = [reference.target for reference in row.guarded_references if reference.path]
    if row.history is not None:
        found += version_numbers.guards(row.history)
    return found


def ids_in(where: Filter) -> frozenset[str] | None:
    """The ids to which a condition limits rows; None if it does not limit them."""
    ids = [part.ids for part in (where.parts if isinstance(where, AllOf) else (where,)) if isinstance(part, IdIs)]
    return frozenset.intersection(*ids) if ids else None
