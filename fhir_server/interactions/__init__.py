"""WHAT CAN be done: one module an interaction, each given a View and nothing else to read with."""
