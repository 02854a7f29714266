"""What a client may be registered with beyond the plain flow: logout, pairwise identifiers, pushed requests, bound tokens.

The names are those of client metadata (RFC 7591 and its registry), so that registrations are stored as they are sent.
"""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from fhir_server.web.public_fetch import Hosts, is_allowed

SubjectType = Literal["public", "pairwise"]


class ClientOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """The options of one client.

    ``post_logout_redirect_uris``            where a browser may be sent after a sign-out that the client asked for
    ``backchannel_logout_uri``               where the server tells the client that a person signed out; "" for nowhere
    ``backchannel_logout_session_required``  whether a logout token must name the session; it always does
    ``subject_type``                         ``pairwise``: the client's identifiers of people are of its sector only
    ``sector_identifier_uri``                lists the redirect URIs of all clients of the sector; "": the sector is the redirect host
    ``require_pushed_authorization_requests``  authorization requests only by way of ``/oauth/par``
    ``dpop_bound_access_tokens``             tokens only with a proof of possession
    ``without_pkce``                         authorization requests of an EHR launch need no PKCE (operators only)
    """

    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str = ""
    backchannel_logout_session_required: bool = False
    subject_type: SubjectType = "public"
    sector_identifier_uri: str = ""
    require_pushed_authorization_requests: bool = False
    dpop_bound_access_tokens: bool = False
    without_pkce: bool = False


REGISTERED: Final = tuple(name for name in ClientOptions.__struct_fields__ if name != "without_pkce")
"""The options that a client may choose itself when it registers."""


def sector(options: ClientOptions, redirect_uris: tuple[str, ...]) -> str:
    """The host whose clients share pairwise identifiers; "" if several redirect URIs leave it open (OpenID Connect Core 8.1)."""
    hosts = {urlsplit(uri).hostname or "" for uri in ([options.sector_identifier_uri] if options.sector_identifier_uri else redirect_uris)}
    return hosts.pop() if len(hosts) == 1 else ""


def check(options: ClientOptions, redirect_uris: tuple[str, ...], hosts: Hosts = Hosts.PUBLIC_OR_LOCAL) -> None:
    """Raises ValueError, with a message for the operator or developer, for options that are unsafe or do not fit together."""
    for uri in (options.backchannel_logout_uri, options.sector_identifier_uri):
        if uri and not is_allowed(uri, hosts):
            raise ValueError(f"{uri!r} must be https (or http on this machine, in demo mode), without a fragment.")
    if options.subject_type == "pairwise" and not sector(options, redirect_uris):
        raise ValueError("Pairwise identifiers with redirect URIs at several hosts need a sector_identifier_uri.")
