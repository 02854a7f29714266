"""``organization``: other health systems at which people can link their accounts."""

from __future__ import annotations

from typing import Literal

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.linking import organizations
from fhir_server.linking.checking import Finding, check
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
@click.option("--place", default="", help="Where the organization is, for people who choose among many.")
@click.option(
    "--per-minute", type=int, default=300, show_default=True, help="Requests that it is sent in a minute, for all people together."
)
@click.option("--at-once", type=int, default=6, show_default=True, help="Requests that it is sent at the same time.")
@click.option(
    "--own-redirect-uri",
    is_flag=True,
    help="Give a redirect URI of its own to an organization that still has the shared one. A new organization always has its own.",
)
def add_organization(
    id: str,
    name: str,
    base: str,
    client_id: str,
    method: Literal["none", "private_key_jwt"],
    sign_in: str,
    place: str,
    per_minute: int,
    at_once: int,
    own_redirect_uri: bool,
) -> None:
    """Register an organization under ID, or change it, and print the redirect URI to register there."""

    async def add(components: Components) -> str:
        known = await organizations.find(components.store, id)
        is_own = own_redirect_uri or known is None or known.own_redirect_uri
        changed = Organization(id, name, base.rstrip("/"), client_id, method, sign_in, place, is_own, per_minute, at_once)
        await organizations.add(components.smart, changed)
        return LinkingContext(components.smart).redirect_uri(changed)

    event = SecurityEvent("add-organisation", detail={"organisation": id})
    click.echo(f"Redirect URI to register there: {run_with_components(with_audit_event(add, event))}")


@organization.command("list")
def list_organizations() -> None:
    """List the registered organizations."""
    for registered in run_with_components(lambda components: organizations.list_all(components.store)):
        shared = "" if registered.own_redirect_uri else "  shared redirect URI"
        click.echo(f"{registered.id:20} {registered.client_id:20} {registered.base}{shared}")


@organization.command("check")
@click.argument("id")
def check_organization(id: str) -> None:
    """Ask an organization for what linking needs, and say what is missing. Needs no account there."""

    async def run(components: Components) -> list[Finding]:
        known = await organizations.find(components.store, id)
        if known is None:
            raise click.ClickException(f"There is no organization {id!r}.")
        return await check(LinkingContext(components.smart), known)

    findings = run_with_components(run)
    for finding in findings:
        click.echo(f"{finding.rating:8} {finding.text}")
    if any(finding.rating == "problem" for finding in findings):
        raise click.ClickException("People cannot link accounts at this organization.")


@organization.command("remove")
@click.argument("id")
def remove_organization(id: str) -> None:
    """Delete an organization and all links of accounts to it."""
    event = SecurityEvent("remove-organisation", detail={"organisation": id})
    if not run_with_components(with_audit_event(lambda components: organizations.remove(components.store, id), event)):
        raise click.ClickException(f"There is no organization {id!r}.")
    click.echo(f"Removed {id}.")
