"""``policy``: checks a policy file."""

from __future__ import annotations

import click

from fhir_server.cli.base import load_settings, main
from fhir_server.consent import policy as policies


@main.command()
@click.argument("name", required=False)
def policy(name: str | None) -> None:
    """Check a policy and print its rules.

    NAME is a shipped policy (optum, ssm, strict) or the path of a policy file.  [default: FHIR_SERVER_POLICY]
    """
    checked = name or load_settings().policy
    try:
        loaded = policies.load(checked)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{checked}: version {loaded.version}, time zone {loaded.timezone}, {len(loaded.rules)} rules")
    for rule in loaded.rules:
        click.echo(f"{rule.effect:7} {','.join(sorted(rule.actors)):30} {rule.id} ({rule.source})")
