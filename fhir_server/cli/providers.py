"""``provider``: OpenID providers at which people can sign in, and the accounts linked to their subjects."""

from __future__ import annotations

from typing import Literal

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.accounts.identity_providers import LinkedIdentity, Provider
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def provider() -> None:
    """Manage the OpenID providers at which people can sign in."""


@provider.command("add")
@click.argument("issuer")
@click.option("--label", required=True, help='Name on the sign-in page: "Sign in with LABEL".')
@click.option("--client-id", required=True, help="This server's client id at the provider.")
@click.option(
    "--method",
    type=click.Choice(["client_secret", "private_key_jwt"]),
    default="client_secret",
    show_default=True,
    help="How this server authenticates at the provider.",
)
def add_provider(issuer: str, label: str, client_id: str, method: Literal["client_secret", "private_key_jwt"]) -> None:
    """Register a provider and print the URLs to register there.  Asks for the client secret unless --method is private_key_jwt."""
    secret = click.prompt("Client secret", hide_input=True, err=True) if method == "client_secret" else ""

    async def add(components: Components) -> tuple[str, str]:
        registration = Provider(issuer, label, client_id, method)
        await identity_providers.add(components.smart, registration, secret)
        return identity_providers.redirect_uri(components.smart, registration), f"{components.smart.origin}/oauth/jwks"

    event = SecurityEvent("add-provider", detail={"issuer": issuer})
    redirect_uri, jwks_uri = run_with_components(with_audit_event(add, event))
    click.echo(f"Redirect URI to register there: {redirect_uri}")
    if method == "private_key_jwt":
        click.echo(f"JWK Set URL to register there: {jwks_uri}")


@provider.command("list")
def list_providers() -> None:
    """List the providers and the accounts linked to their subjects."""

    async def read(components: Components) -> tuple[tuple[Provider, ...], tuple[LinkedIdentity, ...]]:
        return await identity_providers.list_all(components.store), await identity_providers.list_linked_identities(components.store)

    registered, identities = run_with_components(read)
    for one in registered:
        click.echo(f"{one.issuer}  {one.label}  {one.client_id}  {one.method}")
        for identity in identities:
            if identity.issuer == one.issuer:
                click.echo(f"    {identity.sub}  {identity.username}")


@provider.command("remove")
@click.argument("issuer")
def remove_provider(issuer: str) -> None:
    """Delete a provider and its links to accounts.  Ends the sessions of these accounts."""
    event = SecurityEvent("remove-provider", detail={"issuer": issuer})
    if not run_with_components(with_audit_event(lambda components: identity_providers.remove(components.store, issuer), event)):
        raise click.ClickException(f"There is no provider {issuer!r}.")
    click.echo(f"Removed {issuer}.")


@provider.command("link")
@click.argument("issuer")
@click.argument("subject")
@click.argument("username")
def link_subject(issuer: str, subject: str, username: str) -> None:
    """Link the provider's SUBJECT to the account USERNAME."""
    event = SecurityEvent("link-subject", username=username, detail={"issuer": issuer, "subject": subject})
    run_with_components(with_audit_event(lambda components: identity_providers.link(components.store, issuer, subject, username), event))
    click.echo(f"{subject} signs in as {username}.")


@provider.command("unlink")
@click.argument("issuer")
@click.argument("subject")
def unlink_subject(issuer: str, subject: str) -> None:
    """Unlink the provider's SUBJECT from its account.  Ends the account's sessions."""
    event = SecurityEvent("unlink-subject", detail={"issuer": issuer, "subject": subject})
    if not run_with_components(with_audit_event(lambda components: identity_providers.unlink(components.store, issuer, subject), event)):
        raise click.ClickException(f"No account is linked to {subject!r} of {issuer}.")
    click.echo(f"{subject} is no longer linked to an account.")
