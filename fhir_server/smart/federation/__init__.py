"""Sign-in with external OpenID providers."""
