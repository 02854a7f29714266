"""Links between the entries of a Bundle (http://hl7.org/fhir/R4/http.html#trules): replaces fullUrls with references.

Only the members ``reference``, ``url`` and ``uri`` are replaced.  An identifier may look like a link, but is not one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ANY_LINK: Final = re.compile(rb'"(reference|url|uri)"(\s*:\s*)"([^"\\]*)"')
ABSOLUTE_LINK: Final = re.compile(rb'"(reference|url|uri)"(\s*:\s*)"(urn:[^"\\]*|https?://[^"\\]*)"')


def replace_links(text: bytes, targets: Mapping[str, str], links: re.Pattern[bytes] = ANY_LINK) -> bytes:
    """Return the JSON text with each link that ``links`` matches replaced by its value in ``targets``, if it has one."""

    def replace(match: re.Match[bytes]) -> bytes:
        name, colon, link = match.groups()
        target = targets.get(link.decode())
        return match.group(0) if target is None else b'"%s"%s"%s"' % (name, colon, target.encode())

    return links.sub(replace, text)
