"""WHERE ELSE a person is known: her accounts at other health systems, linked from here.

Here our server is a SMART client of theirs.  The person signs in at the other system with the credentials she has
there; what we keep is the token that its sign-in gives us, sealed, under her account.  What it lets us read is read
through to her page: never stored, never part of our FHIR answers, and not there for anyone who acts for her, since
the other system's policy governs its data and it has let in nobody but her.

The other direction (their patients linking an account here) needs nothing of this room: it is our own SMART server
with a client of kind ``partner``.
"""

from fhir_server.linking.routes import router

__all__ = ["router"]
