"""The other health systems that people may link to, as the operator registers them."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.registry import Register
from fhir_server.smart.outbound.json_client import is_callable_url, origin_of
from fhir_server.store import Store

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)


class Organization(msgspec.Struct, frozen=True):
    """Another system, and who we are there.

    ``base``       its FHIR base URL, without a slash at the end
    ``client_id``  what it calls us
    ``method``     how we prove it: none (public client; PKCE alone) or private_key_jwt, with the ES384 key of our JWK Set
    ``sign_in``    origin of its authorization server, where that is not the origin of ``base``
    """

    id: str
    name: str
    base: str
    client_id: str
    method: Literal["none", "private_key_jwt"] = "none"
    sign_in: str = ""

    @property
    def authority(self) -> str:
        """The one origin to which codes, tokens and assertions of ours may go."""
        return origin_of(self.sign_in or self.base)


_organizations = Register("linked-organisation", Organization)


def family(id: str) -> str:
    """The family, among the store's secrets, of all links to this organisation."""
    return f"linked-organisation:{id}"


async def find(store: Store, id: str) -> Organization | None:
    return await _organizations.find(store, id)


async def list_all(store: Store) -> tuple[Organization, ...]:
    """By id."""
    return await _organizations.list_all(store)


async def add(smart: SmartContext, organization: Organization) -> None:
    """Register or change.  Raises ValueError, worded for the operator, for what cannot be called safely."""
    _check(smart, organization)
    await _organizations.save(smart.store, organization.id, organization)


async def remove(store: Store, id: str) -> bool:
    """Take an organisation away with every link to it; False if there was none.

    The links' tokens are forgotten, not revoked: tell the other system to close our registration too.
    """
    gone = await _organizations.remove(store, id)
    await store.key_values.delete_family(family(id))
    return gone


def _check(smart: SmartContext, organization: Organization) -> None:
    if not _ID.fullmatch(organization.id):
        raise ValueError("An organisation's id is 1 to 64 small letters, digits and hyphens.")
    if not organization.name.strip() or not organization.name.isprintable():
        raise ValueError("An organisation needs a name that people will recognise.")
    if not organization.client_id.isprintable() or not organization.client_id:
        raise ValueError("The client id is what the other system calls this server; it cannot be empty.")
    if not is_callable_url(smart, organization.base) or "?" in organization.base or organization.base.endswith("/"):
        raise ValueError("The FHIR base must be an https URL without a query and without a slash at the end.")
    sign_in = organization.sign_in
    if sign_in and (not is_callable_url(smart, sign_in) or sign_in != origin_of(sign_in)):
        raise ValueError("The sign-in origin must be https://host[:port] and nothing more.")
