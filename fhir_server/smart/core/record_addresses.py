"""The addresses of the pages of records: ``/r/{key}``, with a key that is another for each account and record and tells nothing."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.encryption import derive_key

PATH: Final = "/r"
_PURPOSE: Final = "addresses of records"
_BYTES: Final = 16


def key_of(smart: SmartContext, subject: str, patient: str) -> str:
    """The key of a patient's record in the addresses of the account with this subject."""
    secret = derive_key(smart.key.encode(), _PURPOSE)
    return urlsafe_b64encode(hmac.digest(secret, f"{subject}\0{patient}".encode(), sha256)[:_BYTES]).decode().rstrip("=")
