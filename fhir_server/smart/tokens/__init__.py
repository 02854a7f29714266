"""OAuth server on Authlib: grants, tokens, revocation, introspection, launch context."""
