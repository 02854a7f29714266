"""Linked accounts: people link their accounts at other health systems and read that information on this server's pages.

This server is a SMART client of the other system. The person signs in at the other system. This server stores with the
person's account the tokens, and the name and birth date that the record has there, all encrypted. It shows the other
information directly from the other system: it does not store it, its FHIR API does not return it, and people with access to
the person's record do not see it. The other system's policy governs its data, and that system gave access only to this person.

For the other direction (patients of the other system link an account at this server), the other system is an ordinary client
of kind ``partner`` of this SMART server. This package is not involved.
"""

from fhir_server.linking.routes import router

__all__ = ["router"]
