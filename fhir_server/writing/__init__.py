"""A resource's way into the store: parsed and validated, labeled, indexed, written, and its labels propagated."""
