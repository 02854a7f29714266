"""``token``: access tokens for the operator."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components
from fhir_server.smart.core.security_events import SecurityEvent, patient_references
from fhir_server.smart.tokens import tokens


@main.command()
@click.option("--client", "client_id", required=True, help="Client that gets the token.")
@click.option("--user", "username", help="Username of the account that the token acts for.  [default: none, for a backend]")
@click.option("--patient", help="Id of the Patient in context.  [default: none]")
@click.option("--scope", required=True, help='Scopes, separated by spaces.  Example: "system/*.rs".')
def token(client_id: str, username: str | None, patient: str | None, scope: str) -> None:
    """Print an access token, for tests by the operator.  Needs access to the store."""

    async def issue(components: Components) -> str:
        text = await tokens.issue_operator_token(components.store, client_id, scope, components.clock(), username=username, patient=patient)
        event = SecurityEvent("operator-token", True, username or "", client_id, about=patient_references(patient), detail={"scope": scope})
        await components.smart.record(event)
        return text

    click.echo(run_with_components(issue))
