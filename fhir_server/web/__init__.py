"""Shared by the pages and the HTTP endpoints: security headers, forms, dates, fetching of public URLs."""
