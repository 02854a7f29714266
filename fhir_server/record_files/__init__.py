"""Files of a whole record for people: one self-contained HTML page, and a PDF with the same content, from an answer of ``$everything``.

Both are made in another process (:mod:`fhir_server.record_files.making`), because a long record takes seconds.  So nothing here imports
the server: that would take longer than most files.
"""
