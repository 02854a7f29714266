"""People's accounts: users, passwords, second factors, sessions, and how they sign in."""
