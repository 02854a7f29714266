"""From an authorization request to the answer of the person."""
