"""Apps and systems as clients: their registration, their keys, and how they prove who they are."""
