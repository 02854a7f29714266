"""Public documents: SMART and OpenID configuration, user-access brands, page style."""
