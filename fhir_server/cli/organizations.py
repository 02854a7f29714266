"""``organization``: the other health systems that people may link to."""

from __future__ import annotations

from typing import Literal

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, with_audit_event, with_parts
from fhir_server.linking import organizations
from fhir_server.linking.context import LinkingContext
from fhir_server.linking.organizations import Organization
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def organization() -> None:
    """Other health systems, at which people may link their accounts."""


@organization.command("add")
@click.argument("id")
@click.option("--name", required=True, help="Name that people see.")
@click.option("--base", required=True, help="Its FHIR base URL.")
@click.option("--client-id", required=True, help="What it calls us.")
@click.option("--method", type=click.Choice(["none", "private_key_jwt"]), default="none", show_default=True)
@click.option("--sign-in", default="", help="Origin of its authorization server, if it is another than the FHIR base's.")
def organization_add(id: str, name: str, base: str, client_id: str, method: Literal["none", "private_key_jwt"], sign_in: str) -> None:
    """Register another system, and show what it must register of us."""

    async def add(made: Components) -> str:
        await organizations.add(made.smart, Organization(id, name, base.rstrip("/"), client_id, method, sign_in))
        return LinkingContext(made.smart).redirect_uri

    event = SecurityEvent("add-organisation", detail={"organisation": id})
    click.echo(f"Redirect URI to register there: {with_parts(with_audit_event(add, event))}")


@organization.command("list")
def organization_list() -> None:
    """List the registered systems."""
    for one in with_parts(lambda made: organizations.list_all(made.store)):
        click.echo(f"{one.id:20} {one.client_id:20} {one.base}")


@organization.command("remove")
@click.argument("id")
def organization_remove(id: str) -> None:
    """Remove a registration, and with it every link of ours to it."""
    if not with_parts(
        with_audit_event(
            lambda made: organizations.remove(made.store, id), SecurityEvent("remove-organisation", detail={"organisation": id})
        )
    ):
        raise click.ClickException(f"There is no organisation {id!r}.")
    click.echo(f"{id} is gone.")
