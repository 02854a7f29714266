"""``operation``: let running servers refuse writes, or everything."""

from __future__ import annotations

import asyncio
from typing import Final, get_args

import click

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components
from fhir_server.clock import instant_text
from fhir_server.operation.state import MAX_AGE, Operation, find_operation, set_operation
from fhir_server.settings import OperationLevel
from fhir_server.smart.core.security_events import SecurityEvent

_MEANINGS: Final[dict[str, str]] = {
    "normal": "everything is allowed",
    "read-only": "records can be read, nothing can be changed",
    "maintenance": "all requests are refused",
}


@main.command()
@click.argument("level", required=False, type=click.Choice(get_args(OperationLevel)))
@click.option("--reason", default="", help="Why; it becomes part of the audit log.")
@click.option("--notice", default="", help="A sentence for people and apps that are refused, such as until when.")
def operation(level: OperationLevel | None, reason: str, notice: str) -> None:
    """Let all servers on the store be read-only, close them for maintenance, or open them again.

    Without LEVEL, say how it is.  When the command has ended, no server process begins a write, or answers a request, that the level
    forbids.  FHIR_SERVER_OPERATION can ask one process for a stricter level.
    """
    if level is None and (reason or notice):
        raise click.UsageError("Give a LEVEL.")
    if level not in (None, "normal") and not reason:
        raise click.UsageError("Give a --reason.")

    async def change(components: Components) -> Operation:
        if level is None:
            return await find_operation(components.store)
        await components.auditor.prepare()
        wanted = Operation(level, components.clock(), notice)
        await set_operation(components.store, wanted)
        await components.smart.record(SecurityEvent("change-operation", detail={"level": level} | ({"reason": reason} if reason else {})))
        await asyncio.sleep(MAX_AGE)
        return wanted

    found = run_with_components(change)
    since = f", since {instant_text(found.since)}" if found.since else ""
    click.echo(f"{found.level}: {_MEANINGS[found.level]}{since}.{' ' + found.notice if found.notice else ''}")
