"""Documents that anybody may read: SMART and OpenID configuration, keys, brands."""
