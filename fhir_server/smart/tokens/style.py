"""The SMART style document: colors, sizes and fonts of this server's pages, for apps that adopt them (``smart_style_url``).

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#styling.  The path contains a digest of the
content: a changed style has a new URL, so clients may cache the document without limit.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

_STYLE: Final = {
    "color_background": "#f2f6f7",
    "color_error": "#a3161a",
    "color_highlight": "#0b5a6f",
    "color_modal_backdrop": "",
    "color_success": "#1d6b3a",
    "color_text": "#16252c",
    "dim_border_radius": "8px",
    "dim_font_size": "17px",
    "dim_spacing_size": "20px",
    "font_family_body": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "font_family_heading": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
}
STYLE: Final = json.dumps(_STYLE).encode()
PATH: Final = f"/smart-style/{hashlib.sha256(STYLE).hexdigest()[:16]}.json"
