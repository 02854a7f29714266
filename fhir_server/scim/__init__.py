"""The administrative API for accounts: a subset of SCIM 2.0 (RFC 7643, RFC 7644) below ``/scim/v2``.

It needs an access token with the scope ``system/scim``, which opens nothing else, and a token for FHIR does not open it.  It reads
and changes accounts, never resources: it answers the same whatever records are in the store.
"""

from fhir_server.scim.routes import router

__all__ = ["router"]
