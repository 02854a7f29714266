"""Attacks on the authorization server and its pages.  ``index`` lists the tests of each attack."""
