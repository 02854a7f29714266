"""OAuth clients (apps and backend systems): registration, public keys, authentication by assertion."""
