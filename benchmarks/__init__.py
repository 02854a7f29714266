"""Measurements of a whole server over HTTP; ``python -m benchmarks`` runs them and rewrites ``docs/performance.md``."""
