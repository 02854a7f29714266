"""Attacks on the authorization server and its pages, each a named test that fails as it should; see ``index``."""
