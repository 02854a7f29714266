"""What a server claims by the packages in its store: the profiles that it supports, and what it is as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from fhir_server.packages.loading import StoredPackage
from fhir_server.profiles.held_profiles import HeldProfile
from fhir_server.resources import definitions


class Claims(NamedTuple):
    """``profiles``: (type, canonical URL) of profiles of resources; ``servers``: URLs of CapabilityStatements that it follows."""

    profiles: tuple[tuple[str, str], ...] = ()
    servers: tuple[str, ...] = ()

    def profiles_of(self, type: str) -> list[str]:
        """The URLs of the profiles of a type."""
        return [url for of, url in self.profiles if of == type]


NO_CLAIMS: Final = Claims()


def claims_of(stored: Iterable[StoredPackage], own: Iterable[HeldProfile]) -> Claims:
    """What these packages and the profiles of the server's own guide claim, each URL once, in order."""
    pairs = {(one.type, one.url) for package in stored for one in package.profiles} | {(one.type, one.url) for one in own}
    servers = {url for package in stored for url in package.servers}
    return Claims(tuple(sorted(pair for pair in pairs if pair[0] in definitions.types())), tuple(sorted(servers)))
