"""``client invite`` and ``publisher``: who may register apps without the operator, and whose word counts for them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fhir_server.cli.base import main, with_audit_event, with_parts
from fhir_server.cli.users import client
from fhir_server.smart.clients import initial_access_tokens, software_statements
from fhir_server.smart.clients.software_statements import Publisher
from fhir_server.smart.core.security_events import SecurityEvent


@client.command("registration-token")
def invite() -> None:
    """Print an initial access token: good for registering one app, within seven days."""
    click.echo(
        with_parts(with_audit_event(lambda made: initial_access_tokens.issue(made.store, made.clock()), SecurityEvent("invite-developer")))
    )


@main.group()
def publisher() -> None:
    """Publishers whose software statements are believed when an app registers itself."""


@publisher.command("trust")
@click.argument("issuer")
@click.option("--jwks", type=click.Path(exists=True, path_type=Path), required=True, help="File with its public JWK Set.")
def publisher_trust(issuer: str, jwks: Path) -> None:
    """Believe the statements that ISSUER signs with these keys."""
    made_of = Publisher(issuer, json.loads(jwks.read_text(encoding="utf-8")))
    with_parts(
        with_audit_event(
            lambda made: software_statements.trust(made.store, made_of), SecurityEvent("trust-publisher", detail={"issuer": issuer})
        )
    )
    click.echo(f"{issuer} is believed.")


@publisher.command("list")
def publisher_list() -> None:
    """List the publishers that are believed."""
    for one in with_parts(lambda made: software_statements.list_all(made.store)):
        click.echo(one.issuer)


@publisher.command("distrust")
@click.argument("issuer")
def publisher_distrust(issuer: str) -> None:
    """Believe ISSUER no longer; apps it vouched for stay registered."""
    act = SecurityEvent("distrust-publisher", detail={"issuer": issuer})
    if not with_parts(with_audit_event(lambda made: software_statements.distrust(made.store, issuer), act)):
        raise click.ClickException(f"There is no publisher {issuer!r}.")
    click.echo(f"{issuer} is believed no longer.")
