"""``client``: registered apps and backends, and tokens with which developers register apps."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import click
import msgspec

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.smart import demo
from fhir_server.smart.clients import clients, initial_access_tokens, staff_apps
from fhir_server.smart.clients.options import ClientOptions
from fhir_server.smart.core.context import SECOND
from fhir_server.smart.core.security_events import SecurityEvent

_HASHES = ("secret", "manager")  # stored names of the hashes, which `client show` leaves out


@main.group()
def client() -> None:
    """Manage registered apps and backends."""


@client.command("add")
@click.argument("client_id")
@click.option("--name", required=True, help="Name that people see when the app requests access.")
@click.option("--kind", type=click.Choice(["app", "backend", "partner"]), default="app", show_default=True, help="Kind of client.")
@click.option(
    "--method",
    type=click.Choice(["none", "client_secret", "private_key_jwt"]),
    default="none",
    show_default=True,
    help="How the client authenticates.",
)
@click.option("--scope", required=True, help="Scopes that the client may request, separated by spaces.")
@click.option("--redirect-uri", "redirects", multiple=True, help="Exact redirect URI; may be repeated.")
@click.option("--launch-uri", default="", help="URL that an EHR launch opens.  [default: none]")
@click.option("--jwks", type=click.Path(exists=True, path_type=Path), help="File with the client's public JWK Set.")
@click.option("--jwks-uri", default="", help="https URL of the client's public JWK Set, instead of --jwks.")
@click.option(
    "--clearance",
    multiple=True,
    help="Sensitive category that a backend may receive; MIXED: resources about several patients (Group); *: everything.  May be repeated.",
)
@click.option("--post-logout-redirect-uri", "post_logout_redirects", multiple=True, help="Where a sign-out may lead; may be repeated.")
@click.option("--backchannel-logout-uri", default="", help="URL that is told when a person signs out.  [default: none]")
@click.option("--pairwise", is_flag=True, help="The app gets identifiers of people (sub) that no app of another host gets.")
@click.option("--sector-identifier-uri", default="", help="URL whose host stands for the app's, for --pairwise with several hosts.")
@click.option("--require-par", is_flag=True, help="The app must push its authorization requests (RFC 9126).")
@click.option("--require-dpop", is_flag=True, help="The app gets tokens only with a proof of possession (DPoP, RFC 9449).")
@click.option(
    "--without-pkce", is_flag=True, help="EHR launches of this confidential app need no PKCE, for old apps.  Each use is in the audit log."
)
@click.option("--trusted", is_flag=True, help="The client, with the clearance *, may choose ids and send any security label.")
def add_client(
    client_id: str, name: str, kind: clients.ClientKind, method: clients.Method, scope: str, redirects: tuple[str, ...],
    launch_uri: str, jwks: Path | None, jwks_uri: str, clearance: tuple[str, ...], trusted: bool,
    post_logout_redirects: tuple[str, ...], backchannel_logout_uri: str, pairwise: bool, sector_identifier_uri: str,
    require_par: bool, require_dpop: bool, without_pkce: bool,
) -> None:  # fmt: skip
    """Register an app or backend.  With --method client_secret, print the new secret once."""

    async def add(components: Components) -> str:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        registration = clients.Client(
            client_id,
            name,
            kind,
            method,
            scope,
            redirects,
            clearance=clearance,
            trusted=trusted,
            launch_uri=launch_uri,
            jwks_uri=jwks_uri,
            options=ClientOptions(
                post_logout_redirect_uris=post_logout_redirects,
                backchannel_logout_uri=backchannel_logout_uri,
                subject_type="pairwise" if pairwise else "public",
                sector_identifier_uri=sector_identifier_uri,
                require_pushed_authorization_requests=require_par,
                dpop_bound_access_tokens=require_dpop,
                without_pkce=without_pkce,
            ),
        )
        secret = ""
        if method == "client_secret":
            registration, secret = clients.with_new_secret(registration)
        if jwks is not None:
            registration = clients.with_jwks(registration, json.loads(jwks.read_text(encoding="utf-8")))
        await clients.save(components.store, registration)
        event = SecurityEvent("register-app", client_id=client_id, detail={"name": name, "scope": scope})
        await components.smart.record(event)
        return secret

    if secret := run_with_components(add):
        click.echo(secret)
    click.echo(f"Registered {client_id}.", err=True)


@client.command("list")
def list_clients() -> None:
    """List the registered clients, and which of them are approved for staff or need no PKCE."""

    async def read(components: Components) -> list[tuple[clients.Client, str]]:
        now, listed = components.clock(), await clients.list_all(components.store)
        return [(one, "staff" if await staff_apps.find(components.store, one, now) else "-") for one in listed]

    for registration, staff in run_with_components(read):
        marks = "  without PKCE" if registration.options.without_pkce else ""
        click.echo(f"{registration.client_id:20} {registration.kind:8} {registration.method:16} {staff:6} {registration.name}{marks}")


@client.command("show")
@click.argument("client_id")
def show_client(client_id: str) -> None:
    """Print a registration as JSON.  For a demo client, include its private keys."""

    async def find(components: Components) -> tuple[clients.Client | None, object]:
        return await clients.find(components.store, client_id), await demo.private_keys(components.store, client_id)

    registration, keys = run_with_components(find)
    if registration is None:
        raise click.ClickException(f"There is no client {client_id!r}.")
    members = {name: value for name, value in msgspec.to_builtins(registration).items() if name not in _HASHES}
    click.echo(json.dumps({**members, **({"private_jwks": keys} if keys else {})}, indent=2))


@client.command("remove")
@click.argument("client_id")
def remove_client(client_id: str) -> None:
    """Delete a registration.  Its tokens end at once."""

    async def remove(components: Components) -> bool:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        removed = await clients.remove(components.store, client_id, components.clock())
        await components.smart.record(SecurityEvent("remove-app", removed, client_id=client_id))
        return removed

    if not run_with_components(remove):
        raise click.ClickException(f"There is no client {client_id!r}.")
    click.echo(f"Removed {client_id}.")


@client.command("approve-for-staff")
@click.argument("client_id")
@click.option(
    "--scope", "scopes", default="", help="The most that staff may give it, separated by spaces.  [default: all it is registered for]"
)
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last day of the approval.  [default: no end]")
@click.option(
    "--offline-access", "offline", is_flag=True, help="It may keep access while the person is away, for as long as patients' apps."
)
def approve_for_staff(client_id: str, scopes: str, until: datetime | None, offline: bool) -> None:
    """Approve an app for staff, as it is now: they use it without being asked, and it can be opened from charts.

    Replaces an earlier approval; what staff gave under that ends.
    """

    async def approve(components: Components) -> None:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        found = await clients.find(components.store, client_id)
        if found is None:
            raise click.ClickException(f"There is no client {client_id!r}.")
        last = int((until + timedelta(days=1)).replace(tzinfo=components.smart.zone).timestamp()) * SECOND if until else 0
        try:
            await staff_apps.approve(components.store, found, components.clock(), scopes=scopes, until=last, offline=offline)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        detail = {"staff": "approved", "scope": scopes or found.scopes}
        await components.smart.record(SecurityEvent("change-app", client_id=client_id, detail=detail))

    run_with_components(approve)
    click.echo(f"Approved {client_id} for staff.", err=True)


@client.command("end-staff-approval")
@click.argument("client_id")
def end_staff_approval(client_id: str) -> None:
    """End the approval of an app for staff.  What staff gave it under the approval ends at once."""

    async def end(components: Components) -> bool:
        await components.auditor.prepare()  # the command does nothing if it cannot be recorded
        ended = await staff_apps.end(components.store, client_id)
        await components.smart.record(SecurityEvent("change-app", ended, client_id=client_id, detail={"staff": "approval ended"}))
        return ended

    if not run_with_components(end):
        raise click.ClickException(f"{client_id!r} is not approved for staff.")
    click.echo(f"Ended the approval of {client_id} for staff.", err=True)


@client.command("registration-token")
def issue_registration_token() -> None:
    """Print an initial access token.  It registers one app, within seven days."""

    async def issue(components: Components) -> str:
        return await initial_access_tokens.issue(components.store, components.clock())

    click.echo(run_with_components(with_audit_event(issue, SecurityEvent("invite-developer"))))
