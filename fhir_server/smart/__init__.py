"""SMART App Launch 2.2 authorization server: clients, accounts, tokens and pages.

A token identifies the caller and the scopes granted.  It does not decide which data is visible: this package does not
know the consent policy, which limits every request further.
"""
