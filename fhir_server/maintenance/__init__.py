"""Operator commands on a whole store: load, export, relabel, copy."""
