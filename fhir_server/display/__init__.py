"""Resources as rows of plain text, for pages: what a resource says, and what became of it.

The resource can be another server's and contain anything, in the shapes of R4, STU3 and DSTU2.  A row never says more than the
resource does: a negation, a status or a comparator is part of the row, and a value that cannot be read is said to be unreadable.
"""

from fhir_server.display.build import Row, build_heading, build_row, is_withdrawn, warnings
from fhir_server.display.shapes import TYPES

__all__ = ["TYPES", "Row", "build_heading", "build_row", "is_withdrawn", "warnings"]
