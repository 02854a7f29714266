"""``end-access``: end all tokens, codes and sessions at once, after a break-in."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components
from fhir_server.maintenance.end_access import Ending, end_access
from fhir_server.smart.accounts.users import canonical
from fhir_server.smart.core.security_events import SecurityEvent


@main.command("end-access")
@click.option("--everyone", is_flag=True, help="Of all people, apps and systems.")
@click.option("--user", "username", default="", help="Of this account.")
@click.option("--client", "client_id", default="", help="Of this app or system; with --user, of this app for this account.")
@click.option("--reason", required=True, help="Why; it becomes part of the audit log.")
def end_all_access(everyone: bool, username: str, client_id: str, reason: str) -> None:
    """End all access tokens, refresh tokens, codes, sessions, launches and registration tokens, in all server processes at once.

    Passwords, second factors, keys and secrets of clients stay, so people and systems can sign in again: lock accounts
    and remove clients that must not.
    """
    if everyone == bool(username or client_id):
        raise click.UsageError("Give --everyone, or --user, --client or both.")

    async def end(components: Components) -> dict[str, int]:
        await components.auditor.prepare()
        ending = Ending(canonical(username), client_id)
        ended = await end_access(components.store, ending, components.clock())
        detail = {"reason": reason, "whose": "everyone" if everyone else "", **{what: str(count) for what, count in ended.items()}}
        await components.smart.record(
            SecurityEvent(
                "end-all-access",
                username=ending.username,
                client_id=client_id,
                detail={name: text for name, text in detail.items() if text},
            )
        )
        return ended

    ended = run_with_components(end)
    for what, count in ended.items():
        click.echo(f"{count} {what} ended.")
    if not ended:
        click.echo("There was nothing to end.")
