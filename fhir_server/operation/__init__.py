"""Read-only and maintenance operation: an operator lets a running server refuse writes, or everything.

The setting ``FHIR_SERVER_OPERATION`` holds for one process, the command ``fhir-server operation`` for all processes on a store; of the
two the stricter one counts.
"""
