"""User accounts: users, passwords, second factors, sessions, and sign-in."""
