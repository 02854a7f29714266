"""What the pages and the HTTP endpoints share: security headers, forms, dates, fetching public URLs."""
