"""``doctor``: checks the installation."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.audit import broken_links
from fhir_server.cli.audit import read_audit_log
from fhir_server.cli.base import main, run_with_components, without_credentials
from fhir_server.maintenance.check_references import unreadable_references


@main.command()
def doctor() -> None:
    """Check the settings, the references in the store and the hash chains of the audit log."""
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
        _references(await unreadable_references(components.store)),
    ]


def _references(names: list[str]) -> str:
    """The line about resources from before the server refused malformed references: they are to be corrected where they come from."""
    if not names:
        return "references  all can be read"
    return f"references  {len(names)} resources have one that cannot be read or followed, the first {names[0]}"
