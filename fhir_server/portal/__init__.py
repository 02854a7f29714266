"""Web pages for people: the start page, sharing a record with family and friends, and the apps that are connected."""

from fhir_server.portal.routes import router

__all__ = ["router"]
