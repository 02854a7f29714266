"""Shared by all packages of ``smart``: context, scopes, keys, persons, token grants, security events."""
