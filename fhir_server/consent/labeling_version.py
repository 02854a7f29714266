"""What the labels in a store were computed with, as a digest: the lists, the policy's part in it, and the code itself.

A store keeps the digest of its last complete labeling.  If it differs from the one in use, ``fhir-server doctor`` asks for
``fhir-server relabel``: resources stored before a list changed have the labels of the former list.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from fhir_server.consent.policy import Policy
from fhir_server.package_data import data_folder

# Increase it with each change of code that labels or indexes a stored resource differently; a test compares the labels of the demo records.
LABELER_VERSION: Final = 7


def labeling_digest(policy: Policy, lists: Path | str = "", own: Path | str = "", zone: str = "UTC") -> str:
    """Return the digest of everything that labels depend on.

    ``lists``: folder of the lists ("": the package's ``ig``); ``own``: folder of the institution's lists ("": none); ``zone``: the zone
    with which dates are indexed.  Rules that only decide who sees which label are not part of it: they count at once.
    """
    folder = Path(lists) if lists else data_folder("ig")
    files = [*folder.glob("valuesets/*.json"), folder / "words.json", *data_folder("ig").glob("elements/*.csv")]
    digest = sha256(b"%d" % LABELER_VERSION)
    for path in [*sorted(files), *(sorted(Path(own).glob("*.json")) if own else ())]:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    redactions = sorted((data, sorted(elements)) for data, elements in policy.redactions.items())
    digest.update(msgspec.json.encode((redactions, sorted(policy.holds))))
    if zone != "UTC":
        digest.update(zone.encode())
    return digest.hexdigest()[:32]
