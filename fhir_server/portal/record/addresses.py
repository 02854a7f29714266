"""The addresses of records: ``/r/{key}``, with a key that is another for each account and record and tells nothing.

No session has a current record, so that two tabs with two records cannot be mistaken for each other.  A key of another account, of a
record that the person may no longer open, and an invented one are the same: none of the person's records has it.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from fhir_server.smart.accounts.users import User
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import derive_key
from fhir_server.smart.core.persons import RecordChoice

PATH: Final = "/r"
_PURPOSE: Final = "addresses of records"
_BYTES: Final = 16


def key_of(smart: SmartContext, user: User, patient: str) -> str:
    """The key of a patient's record in the addresses of this account."""
    secret = derive_key(smart.key.encode(), _PURPOSE)
    named = f"{user.subject}\0{patient}".encode()
    return urlsafe_b64encode(hmac.digest(secret, named, sha256)[:_BYTES]).decode().rstrip("=")


def find(smart: SmartContext, user: User, records: Sequence[RecordChoice], key: str) -> RecordChoice | None:
    """The one of the person's records that has the key; None if none has."""
    return next((record for record in records if hmac.compare_digest(key_of(smart, user, record.patient).encode(), key.encode())), None)
