"""The look of our pages for apps that want to fit in (``smart_style_url``), and launch parameters as a client is told them.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#styling.  The address holds a digest of the
content, so a changed style has a new address and the old one may be kept for ever.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.token_grants import TokenGrant

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


def launch_parameters(smart: SmartContext, token_grant: TokenGrant) -> dict[str, Any]:
    """The launch parameters that stand beside an access token; a person's grant comes with our style, unless the launch had one."""
    style = {"smart_style_url": f"{smart.origin}{PATH}"} if token_grant.username else {}
    return style | token_grant.context()
