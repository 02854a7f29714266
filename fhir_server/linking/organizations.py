"""The other health systems to which people can link accounts. The operator registers them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from fhir_server.smart.core.context import SmartContext
from fhir_server.smart.core.registry import Register
from fhir_server.smart.outbound.json_client import is_callable_url, origin_of
from fhir_server.store import Store

_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)


class Organization(msgspec.Struct, frozen=True):
    """Another health system, and this server's registration as its client.

    ``base``       the other system's FHIR base URL, without a slash at the end
    ``client_id``  this server's client id there
    ``method``     this server's client authentication there: none (public client with PKCE) or private_key_jwt, with the
                   ES384 key of this server's JWK Set
    ``sign_in``    origin of the other system's authorization server; "": the origin of ``base``
    ``place``      where it is, for people who choose among many ("Springfield"); "" if not stated
    ``own_redirect_uri``  whether this server's redirect URI there is the organization's own; False for one that was registered by
                   an earlier version and still has the shared one
    ``per_minute``, ``at_once``  how many requests this server sends it, for all people together
    """

    id: str
    name: str
    base: str
    client_id: str
    method: Literal["none", "private_key_jwt"] = "none"
    sign_in: str = ""
    place: str = ""
    own_redirect_uri: bool = False
    per_minute: int = 300
    at_once: int = 6

    @property
    def authority(self) -> str:
        """The only origin to which this server sends codes, tokens and assertions for this organization."""
        return origin_of(self.sign_in or self.base)


_organizations = Register("linked-organisation", Organization)


def link_family(id: str) -> str:
    """Return the key-value family of all links to this organization."""
    return f"linked-organisation:{id}"


async def find(store: Store, id: str) -> Organization | None:
    return await _organizations.find(store, id)


async def list_all(store: Store) -> tuple[Organization, ...]:
    """Return all organizations, sorted by id."""
    return await _organizations.list_all(store)


def search(organizations: Sequence[Organization], text: str) -> tuple[Organization, ...]:
    """Return the organizations that have all words of ``text`` in their name and place, sorted by name."""
    words = text.casefold().split()
    found = [each for each in organizations if all(word in f"{each.name} {each.place}".casefold() for word in words)]
    return tuple(sorted(found, key=lambda each: (each.name.casefold(), each.place.casefold(), each.id)))


async def add(smart: SmartContext, organization: Organization) -> None:
    """Register or change an organization. Raises ValueError with a message for the operator if a value is invalid."""
    _validate(smart, organization)
    await _organizations.save(smart.store, organization.id, organization)


async def remove(store: Store, id: str) -> bool:
    """Remove an organization and all links to it; False if it does not exist.

    The tokens of the links are deleted, but not revoked: the other system must also remove this server's registration.
    """
    removed = await _organizations.remove(store, id)
    await store.key_values.delete_family(link_family(id))
    return removed


def _validate(smart: SmartContext, organization: Organization) -> None:
    if not _ID.fullmatch(organization.id):
        raise ValueError("The organization id must have 1 to 64 lowercase letters, digits and hyphens, and begin with a letter or digit.")
    if not organization.name.strip() or not organization.name.isprintable():
        raise ValueError("The organization needs a name, without control characters.")
    if not organization.place.isprintable():
        raise ValueError("The place must not have control characters.")
    if not 1 <= organization.per_minute <= 6000 or not 1 <= organization.at_once <= 100:
        raise ValueError("The organization must allow 1 to 6000 requests a minute, and 1 to 100 at once.")
    if not organization.client_id.isprintable() or not organization.client_id:
        raise ValueError("The client id is required: it is this server's client id at the other system.")
    if not is_callable_url(smart, organization.base) or "?" in organization.base or organization.base.endswith("/"):
        raise ValueError("The FHIR base must be an https URL without a query and without a slash at the end.")
    sign_in = organization.sign_in
    if sign_in and (not is_callable_url(smart, sign_in) or sign_in != origin_of(sign_in)):
        raise ValueError("The sign-in origin must have the form https://host[:port].")
