"""Resources of other health systems as rows of plain text: what a resource says, what became of it, and whose it is.

The JSON comes from another server and can contain anything, in the shapes of R4, STU3 and DSTU2.  A row never says more than the
resource does: a negation, a status or a comparator is part of the row, and a value that cannot be read is said to be unreadable.
"""

from fhir_server.linking.rows.build import Row, build_row, is_withdrawn
from fhir_server.linking.rows.shapes import TYPES

__all__ = ["TYPES", "Row", "build_row", "is_withdrawn"]
