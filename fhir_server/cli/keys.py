"""``keys``: the keys that id_tokens are signed with."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, with_audit_event, with_parts
from fhir_server.clock import instant_text
from fhir_server.smart.core import signing_keys as signing
from fhir_server.smart.core.security_events import SecurityEvent


@main.group("keys")
def keys() -> None:
    """Keys that sign id_tokens."""


@keys.command("list")
def keys_list() -> None:
    """List the keys that are published, oldest first."""
    for key in with_parts(lambda made: signing.list_all(made.smart)):
        state = "current" if key.retired is None else f"retired {instant_text(key.retired)}"
        click.echo(f"{key.kid:18} {key.alg:6} made {instant_text(key.created)}  {state}")


@keys.command("rotate")
@click.option("--alg", type=click.Choice(signing.ALGORITHMS), multiple=True, help="Only the key for this algorithm; may be repeated.")
def keys_rotate(alg: tuple[str, ...]) -> None:
    """Make new keys and retire the old ones, which stay published until the last token they signed has run out."""

    chosen = alg or signing.ALGORITHMS

    async def rotate(made: Components) -> None:
        for one in chosen:
            await signing.rotate(made.smart, one)

    with_parts(with_audit_event(rotate, SecurityEvent("rotate-keys", detail={"alg": " ".join(chosen)})))
    click.echo("New keys sign from now on.")
