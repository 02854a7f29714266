"""E-mail to people: the addresses of an account, codes, notices of changes, and help for those who cannot sign in."""
