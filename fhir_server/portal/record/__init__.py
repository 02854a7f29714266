"""The pages of a health record: a person's own, and those of others that the person may open.

The pages have no door of their own: each list is a FHIR search that the page asks of the API for the person, and gets what an app with all
scopes of the person would get.
"""

from fhir_server.portal.record.pages import add_record

__all__ = ["add_record"]
