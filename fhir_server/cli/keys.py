"""``keys``: the keys that sign id_tokens."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.clock import instant_text
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.security_events import SecurityEvent


@main.group("keys")
def keys() -> None:
    """Manage the keys that sign id_tokens."""


@keys.command("list")
def list_keys() -> None:
    """List the published keys, oldest first."""
    for key in run_with_components(lambda components: signing_keys.list_all(components.smart)):
        state = "current" if key.retired is None else f"retired {instant_text(key.retired)}"
        click.echo(f"{key.kid:18} {key.alg:6} created {instant_text(key.created)}  {state}")


@keys.command("rotate")
@click.option(
    "--alg", type=click.Choice(signing_keys.ALGORITHMS), multiple=True, help="Algorithm; may be repeated.  [default: all algorithms]"
)
def rotate_keys(alg: tuple[str, ...]) -> None:
    """Create new keys and retire the old ones.  A retired key stays published until the last token it signed expires."""
    algorithms = alg or signing_keys.ALGORITHMS

    async def rotate(components: Components) -> None:
        for algorithm in algorithms:
            await signing_keys.rotate(components.smart, algorithm)

    run_with_components(with_audit_event(rotate, SecurityEvent("rotate-keys", detail={"alg": " ".join(algorithms)})))
    click.echo("The server signs with the new keys.")
