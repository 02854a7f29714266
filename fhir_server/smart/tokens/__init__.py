"""Token endpoint: Authlib's server, grants, tokens, launch."""
