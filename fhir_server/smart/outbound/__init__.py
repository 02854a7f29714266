"""Other servers: OpenID providers at which people may sign in, and how we call out and prove who we are."""
