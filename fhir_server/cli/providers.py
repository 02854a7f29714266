"""``provider``: outside OpenID providers at which people may sign in, and whose accounts their subjects are."""

from __future__ import annotations

from typing import Literal

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, with_audit_event, with_parts
from fhir_server.smart.accounts import identity_providers
from fhir_server.smart.accounts.identity_providers import Provider
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def provider() -> None:
    """Outside OpenID providers at which people may sign in."""


@provider.command("add")
@click.argument("issuer")
@click.option("--label", required=True, help='What people are offered: "Sign in with LABEL".')
@click.option("--client-id", required=True, help="What the provider calls this server.")
@click.option("--method", type=click.Choice(["client_secret", "private_key_jwt"]), default="client_secret", show_default=True)
def provider_add(issuer: str, label: str, client_id: str, method: Literal["client_secret", "private_key_jwt"]) -> None:
    """Register a provider, asking for the client secret if there is one, and show what it must register of us."""
    secret = click.prompt("Client secret", hide_input=True, err=True) if method == "client_secret" else ""

    async def add(made: Components) -> tuple[str, str]:
        made_of = Provider(issuer, label, client_id, method)
        await identity_providers.add(made.smart, made_of, secret)
        return identity_providers.redirect_uri(made.smart, made_of), f"{made.smart.origin}/oauth/jwks"

    redirect, jwks = with_parts(with_audit_event(add, SecurityEvent("add-provider", detail={"issuer": issuer})))
    click.echo(f"Redirect URI to register there: {redirect}")
    if method == "private_key_jwt":
        click.echo(f"Key set to register there: {jwks}")


@provider.command("list")
def provider_list() -> None:
    """List the providers, and the accounts that their subjects are."""

    async def everything(made: Components) -> tuple[tuple[Provider, ...], tuple[identity_providers.LinkedIdentity, ...]]:
        return await identity_providers.list_all(made.store), await identity_providers.list_linked_identities(made.store)

    providers, subjects = with_parts(everything)
    for one in providers:
        click.echo(f"{one.issuer}  {one.label}  {one.client_id}  {one.method}")
        for mapped in subjects:
            if mapped.issuer == one.issuer:
                click.echo(f"    {mapped.sub}  {mapped.username}")


@provider.command("remove")
@click.argument("issuer")
def provider_remove(issuer: str) -> None:
    """Remove a provider with the subjects linked to it; their accounts stay, and are signed out."""
    if not with_parts(
        with_audit_event(
            lambda made: identity_providers.remove(made.store, issuer), SecurityEvent("remove-provider", detail={"issuer": issuer})
        )
    ):
        raise click.ClickException(f"There is no provider {issuer!r}.")
    click.echo(f"{issuer} is gone.")


@provider.command("link")
@click.argument("issuer")
@click.argument("subject")
@click.argument("username")
def provider_link(issuer: str, subject: str, username: str) -> None:
    """Let the provider's SUBJECT sign in as USERNAME."""
    act = SecurityEvent("link-subject", username=username, detail={"issuer": issuer, "subject": subject})
    with_parts(with_audit_event(lambda made: identity_providers.link(made.store, issuer, subject, username), act))
    click.echo(f"{subject} signs in as {username}.")


@provider.command("unlink")
@click.argument("issuer")
@click.argument("subject")
def provider_unlink(issuer: str, subject: str) -> None:
    """Let the provider's SUBJECT sign in as nobody any more; the account it was is signed out."""
    act = SecurityEvent("unlink-subject", detail={"issuer": issuer, "subject": subject})
    if not with_parts(with_audit_event(lambda made: identity_providers.unlink(made.store, issuer, subject), act)):
        raise click.ClickException(f"No account is linked to {subject!r} there.")
    click.echo(f"{subject} is nobody here now.")
