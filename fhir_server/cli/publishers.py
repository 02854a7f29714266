"""``publisher``: publishers whose software statements this server trusts (RFC 7591, section 2.3)."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.smart.clients import software_statements
from fhir_server.smart.clients.software_statements import Publisher
from fhir_server.smart.core.security_events import SecurityEvent


@main.group()
def publisher() -> None:
    """Manage the publishers of trusted software statements."""


@publisher.command("trust")
@click.argument("issuer")
@click.option("--jwks", type=click.Path(exists=True, path_type=Path), required=True, help="File with the publisher's public JWK Set.")
def trust_publisher(issuer: str, jwks: Path) -> None:
    """Trust software statements that ISSUER signs with these keys."""
    trusted = Publisher(issuer, json.loads(jwks.read_text(encoding="utf-8")))
    event = SecurityEvent("trust-publisher", detail={"issuer": issuer})
    run_with_components(with_audit_event(lambda components: software_statements.trust(components.store, trusted), event))
    click.echo(f"Software statements of {issuer} are trusted.")


@publisher.command("list")
def list_publishers() -> None:
    """List the trusted publishers."""
    for trusted in run_with_components(lambda components: software_statements.list_all(components.store)):
        click.echo(trusted.issuer)


@publisher.command("distrust")
@click.argument("issuer")
def distrust_publisher(issuer: str) -> None:
    """Stop trusting software statements of ISSUER.  Apps that registered with one stay registered."""
    event = SecurityEvent("distrust-publisher", detail={"issuer": issuer})
    if not run_with_components(with_audit_event(lambda components: software_statements.distrust(components.store, issuer), event)):
        raise click.ClickException(f"There is no publisher {issuer!r}.")
    click.echo(f"Software statements of {issuer} are no longer trusted.")
