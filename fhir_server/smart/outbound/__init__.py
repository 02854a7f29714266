"""Calls to other authorization servers: JSON client, client authentication, validation of id_tokens."""
