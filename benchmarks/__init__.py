"""Benchmarks of a whole server over HTTP.  ``python -m benchmarks`` runs them and writes ``docs/performance.md``."""
