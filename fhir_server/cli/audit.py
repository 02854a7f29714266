"""``journal``: prints the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import click

from fhir_server.app import Components
from fhir_server.audit import LOG_NAME
from fhir_server.cli.base import main, run_with_components


@main.command()
@click.option("--after", type=int, default=0, show_default=True, help="Print only lines with a larger number.")
def journal(after: int) -> None:
    """Print the audit log.

    Each line is a number, a tab and the stored JSON, with an R4 AuditEvent as "event".
    """

    async def show(components: Components) -> None:
        async for number, line in read_audit_log(components, after):
            click.echo(f"{number}\t{line.decode()}")

    run_with_components(show)


async def read_audit_log(components: Components, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the number and text of each audit log line with a number above ``after``."""
    while batch := await components.store.read_log(LOG_NAME, after):
        for line in batch:
            yield line
        after = batch[-1][0]
