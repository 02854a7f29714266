"""Terminology: what code systems, value sets and concept maps say (http://hl7.org/fhir/R4/terminology-module.html).

:mod:`.source` finds them by canonical URL, :mod:`.shipped` those of R4; those that are stored come through the caller's View
(:mod:`fhir_server.access.stored_terminology`).  What no source has is absent: it is an error and never an empty answer.
"""
