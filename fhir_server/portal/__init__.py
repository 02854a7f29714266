"""The portal: start page, friends and family access, connected apps, account settings, and EHR launch for clinicians."""

from fhir_server.portal.routes import router

__all__ = ["router"]
