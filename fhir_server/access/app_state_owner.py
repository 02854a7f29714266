"""Who owns app state: one app of one person (https://hl7.org/fhir/smart-app-launch/STU2.2/app-state.html).

The owner is the ``meta.source`` of a Basic resource that a person's app writes.  Labeling gives such a row the data class
``app-state`` and an index entry of its owner, and the policy admits the owner only.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from fhir_server.resources.basic import APP_STATE_SOURCE
from fhir_server.smart.tokens.tokens import Principal

OWNER_PARAM: Final = "_owner"
"""The search parameter, for policies only, by which a row names its owner."""


def app_state_owner(principal: Principal) -> str:
    """The ``meta.source`` of the app state of this app and person; "" for a caller without a person."""
    if principal.person is None:
        return ""
    return APP_STATE_SOURCE + sha256(msgspec.json.encode((principal.client_id, principal.owner or principal.username))).hexdigest()
