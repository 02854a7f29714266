"""FHIR's XML format (http://hl7.org/fhir/R4/xml.html): conversion from and to JSON, by R4's definitions, and XML Patch.

The server stores and handles JSON; XML is read and written at its edges only.
"""

from fhir_server.fhir_xml.reader import to_json
from fhir_server.fhir_xml.writer import to_xml

__all__ = ["to_json", "to_xml"]
