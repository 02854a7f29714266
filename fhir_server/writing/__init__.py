"""A resource's way into the store: parsed, labeled, indexed, written."""
