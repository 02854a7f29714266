"""``organization``: other health systems at which people can link their accounts."""

from __future__ import annotations

from typing import Literal

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.linking import organizations
from fhir_server.linking.context import LinkingContext
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def organization() -> None:
    """Manage the health systems at which people can link their accounts."""


@organization.command("add")
@click.argument("id")
@click.option("--name", required=True, help="Name that people see.")
@click.option("--base", required=True, help="FHIR base URL of the organization.")
@click.option("--client-id", required=True, help="This server's client id at the organization.")
@click.option(
    "--method",
    type=click.Choice(["none", "private_key_jwt"]),
    default="none",
    show_default=True,
    help="How this server authenticates there.",
)
@click.option("--sign-in", default="", help="Origin of the authorization server.  [default: the origin of --base]")
def add_organization(id: str, name: str, base: str, client_id: str, method: Literal["none", "private_key_jwt"], sign_in: str) -> None:
    """Register an organization under ID and print the redirect URI to register there."""

    async def add(components: Components) -> str:
        await organizations.add(components.smart, Organization(id, name, base.rstrip("/"), client_id, method, sign_in))
        return LinkingContext(components.smart).redirect_uri

    event = SecurityEvent("add-organisation", detail={"organisation": id})
    click.echo(f"Redirect URI to register there: {run_with_components(with_audit_event(add, event))}")


@organization.command("list")
def list_organizations() -> None:
    """List the registered organizations."""
    for registered in run_with_components(lambda components: organizations.list_all(components.store)):
        click.echo(f"{registered.id:20} {registered.client_id:20} {registered.base}")


@organization.command("remove")
@click.argument("id")
def remove_organization(id: str) -> None:
    """Delete an organization and all links of accounts to it."""
    event = SecurityEvent("remove-organisation", detail={"organisation": id})
    if not run_with_components(with_audit_event(lambda components: organizations.remove(components.store, id), event)):
        raise click.ClickException(f"There is no organization {id!r}.")
    click.echo(f"Removed {id}.")
