"""The accounts and clients of the demo.  Only for demo and test mode: passwords and secrets are public."""

from __future__ import annotations

import json
from typing import Any, Final

import anyio.to_thread
from joserfc.jwk import ECKey, KeySet, RSAKey

from fhir_server.clock import MAX_INSTANT
from fhir_server.smart.accounts import users
from fhir_server.smart.clients import clients, staff_apps
from fhir_server.smart.clients.clients import Client
from fhir_server.smart.core.context import digest
from fhir_server.smart.core.persons import Role
from fhir_server.smart.notices import contacts
from fhir_server.store import Store

PASSWORD: Final = "Demo-pass-2026"
SECRET: Final = "demo-secret"
REDIRECT: Final = "http://127.0.0.1:8765/callback"
LAUNCH: Final = "http://127.0.0.1:8765/launch"
READINGS: Final = "http://127.0.0.1:8766/"
# Apps of `examples/` as the start page of the demo lists them: name, address, the command that serves the app.
APPS_TO_TRY: Final = (("Home readings", READINGS, "python3 -m http.server 8766 --bind 127.0.0.1 --directory examples/home-readings"),)
MAILBOX: Final = "alex@adult.example"  # of the account "adult"
_KEYS: Final = "demo-client-keys"
_APP_SCOPES: Final = "openid fhirUser launch launch/patient launch/encounter offline_access online_access patient/*.cruds user/*.cruds"
_CHILDREN: Final = ("child", "teen", "newly-adult")

# user name, display name, role, own Patient, Practitioner, RelatedPersons
PEOPLE: Final[tuple[tuple[str, str, Role, str | None, str | None, tuple[str, ...]], ...]] = (
    ("adult", "Alex Adult", "patient", "adult", None, ()),
    ("newly-adult", "Noor Newly", "patient", "newly-adult", None, ()),
    ("parent-a", "Pat Parent", "patient", None, None, tuple(f"parent-a-of-{child}" for child in _CHILDREN)),
    ("parent-b", "Robin Parent", "patient", None, None, tuple(f"parent-b-of-{child}" for child in _CHILDREN)),
    ("proxy-standard", "Sam Standard", "patient", None, None, ("proxy-standard-of-adult",)),
    ("proxy-full", "Fran Full", "patient", None, None, ("proxy-full-of-adult",)),
    ("us-core-adult", "Uma Core", "patient", "us-core-adult", None, ()),
    ("clinician", "Dr. Rivera", "clinician", None, "dr-rivera", ()),
    ("billing", "Billing office", "billing", None, None, ()),
    ("privacy-officer", "Privacy office", "privacy", None, None, ()),
)

CLIENTS: Final = (
    Client("demo-public", "Demo phone app", "app", "none", _APP_SCOPES, (REDIRECT,)),
    Client(
        "demo-confidential", "Demo web app", "app", "client_secret", _APP_SCOPES, (REDIRECT,), secret_hash=digest(SECRET), launch_uri=LAUNCH
    ),
    Client("demo-asymmetric", "Demo signed app", "app", "private_key_jwt", _APP_SCOPES, (REDIRECT,)),
    Client("home-readings", "Home readings", "app", "none", "launch/patient patient/Patient.r patient/Observation.crs", (READINGS,)),
    Client("demo-backend", "Demo feed", "backend", "private_key_jwt", "system/*.cruds", clearance=("*",), trusted=True),
    Client(
        "demo-partner",
        "Neighbor Health portal",
        "partner",
        "private_key_jwt",
        "openid fhirUser launch/patient offline_access patient/*.rs",
        (REDIRECT,),
    ),
)


async def load(store: Store) -> None:
    """Create the missing demo accounts and clients, and approve the apps for staff.  Existing ones keep their passwords and keys."""
    for username, name, role, patient, practitioner, related in PEOPLE:
        if await users.find(store, username) is None:
            user = await users.create(
                store, username, PASSWORD, role, name=name, patient=patient, practitioner=practitioner, related_persons=related
            )
            if username == "adult":
                await contacts.add(store, user, MAILBOX, store.key_values.now())
    for client in CLIENTS:
        if await clients.find(store, client.client_id) is None:
            await clients.save(store, await _with_keys(store, client))
        if client.kind == "app" and await staff_apps.find(store, client, 0) is None:
            await staff_apps.approve(store, client, store.key_values.now(), offline=True)


async def private_keys(store: Store, client_id: str) -> dict[str, Any] | None:
    """The private JWK Set of a demo client, for ``fhir-server client show``; None if it has none."""
    text = await store.key_values.get(_KEYS, client_id, 0)
    return None if text is None else dict(json.loads(text))


async def _with_keys(store: Store, client: Client) -> Client:
    if client.method != "private_key_jwt":
        return client
    keys = await anyio.to_thread.run_sync(_generate_key)
    text = json.dumps(keys.as_dict(private=True)).encode()
    await store.key_values.put(_KEYS, client.client_id, text, MAX_INSTANT)
    return clients.with_jwks(client, dict(keys.as_dict(private=False)))


def _generate_key() -> KeySet:
    return KeySet(
        [
            RSAKey.generate_key(2048, {"alg": "RS384", "use": "sig"}, auto_kid=True),
            ECKey.generate_key("P-384", {"alg": "ES384", "use": "sig"}, auto_kid=True),
        ]
    )
