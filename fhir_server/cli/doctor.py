"""``doctor``: checks the installation."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.audit import broken_links
from fhir_server.cli.audit import read_audit_log
from fhir_server.cli.base import main, run_with_components, without_credentials


@main.command()
def doctor() -> None:
    """Check the settings, the store and the hash chains of the audit log."""
    for line in run_with_components(_check):
        click.echo(line)


async def _check(components: Components) -> list[str]:
    """Return the lines to print.  Raises ValueError if the audit log was changed."""
    async with components.store.snapshot() as snapshot:
        classes = len(await snapshot.classes())
    lines = [line async for line in read_audit_log(components)]
    broken = broken_links(lines)
    if broken:
        raise ValueError(f"The audit log's hash chain is broken at line {broken[0]} ({len(broken)} broken lines in all).")
    return [
        f"store    {without_credentials(components.settings.store)}: {classes} visibility classes",
        f"policy   {components.settings.policy} {components.policy.version}",
        f"audit    {len(lines)} lines, chain unbroken",
    ]
