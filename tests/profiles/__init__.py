"""Profiles: what they demand, and that it is demanded."""
