"""Sign-in at outside OpenID providers."""
