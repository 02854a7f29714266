"""Which record an address names.

No session has a current record, so that two tabs with two records cannot be mistaken for each other.  A key of another account, of a
record that the person may no longer open, and an invented one are the same: none of the person's records has it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from fhir_server.smart.accounts.users import User
from fhir_server.smart.core import record_addresses
from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.persons import RecordChoice
from fhir_server.smart.core.record_addresses import PATH

__all__ = ["PATH", "find", "key_of"]


def key_of(smart: SmartContext, user: User, patient: str) -> str:
    """The key of a patient's record in the addresses of this account."""
    return record_addresses.key_of(smart, user.subject, patient)


def find(smart: SmartContext, user: User, records: Sequence[RecordChoice], key: str) -> RecordChoice | None:
    """The one of the person's records that has the key; None if none has."""
    return next((record for record in records if hmac.compare_digest(key_of(smart, user, record.patient).encode(), key.encode())), None)
