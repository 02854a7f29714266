"""``keys``: the keys that sign id_tokens and health cards, and the secret key that encrypts them and other secrets."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.clock import instant_text
from fhir_server.maintenance.reseal import ResealReport, reseal
from fhir_server.smart.core import signing_keys
from fhir_server.smart.core.security_events import SecurityEvent


@main.group("keys")
def keys() -> None:
    """Manage the keys that sign id_tokens and health cards, and the replacement of the secret key."""


@keys.command("list")
def list_keys() -> None:
    """List the published keys, oldest first."""
    for key in run_with_components(lambda components: signing_keys.list_all(components.smart)):
        state = "current" if key.retired is None else f"retired {instant_text(key.retired)}"
        click.echo(f"{key.kid:43} {key.alg:6} created {instant_text(key.created)}  {state}")


@keys.command("rotate")
@click.option(
    "--alg", type=click.Choice(signing_keys.ALGORITHMS), multiple=True, help="Algorithm; may be repeated.  [default: all algorithms]"
)
@click.option("--unpublish", is_flag=True, help="After a theft: no former key stays published, so what they signed no longer verifies.")
def rotate_keys(alg: tuple[str, ...], unpublish: bool) -> None:
    """Create new keys and retire the old ones.  A retired key stays published until the last token it signed expires.

    That of health cards (ES256) stays published for good: cards do not expire.
    """
    algorithms = alg or signing_keys.ALGORITHMS

    async def rotate(components: Components) -> None:
        for algorithm in algorithms:
            await signing_keys.rotate(components.smart, algorithm, unpublish=unpublish)

    detail = {"alg": " ".join(algorithms), **({"unpublish": "yes"} if unpublish else {})}
    run_with_components(with_audit_event(rotate, SecurityEvent("rotate-keys", detail=detail)))
    click.echo("The server signs with the new keys.")


@keys.command("reseal")
@click.option("--former-key-lost", is_flag=True, help="Go on although some secrets cannot be opened, and replace such signing keys.")
def reseal_secrets(former_key_lost: bool) -> None:
    """Encrypt the secrets in the store with a new secret key.

    FHIR_SERVER_SECRET_KEY is the new key, FHIR_SERVER_FORMER_SECRET_KEY the one before.  Servers with both settings may run meanwhile.
    """

    async def run(components: Components) -> ResealReport:
        return await reseal(components.smart, is_former_lost=former_key_lost)

    report = run_with_components(with_audit_event(run, SecurityEvent("reseal-keys")))
    click.echo(f"{report.resealed} secrets were encrypted with the new key.")
    if report.unreadable:
        click.echo(
            f"{report.unreadable} could not be opened. Signing keys were replaced. Register providers with a secret again; people have to"
            " link accounts and, with a recovery code or after a reset, set up second factors again; subscribers"
            " have to send the headers of their Subscriptions again."
        )
