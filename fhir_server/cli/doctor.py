"""``doctor``: checks the installation."""

from __future__ import annotations

import click

from fhir_server.app import Components
from fhir_server.cli.audit import summary, verify_audit
from fhir_server.cli.base import main, run_with_components, without_credentials
from fhir_server.maintenance.check_references import unreadable_references


@main.command()
def doctor() -> None:
    """Check the settings, the references in the store and the chain of the audit log."""
    for line in run_with_components(_check):
        click.echo(line)


async def _check(components: Components) -> list[str]:
    """Return the lines to print.  Raises ValueError if the audit log was changed."""
    async with components.store.snapshot() as snapshot:
        classes = len(await snapshot.classes())
    audit = await verify_audit(components)
    if audit.count:
        raise ValueError(f"The audit log is not what this server wrote: {summary(audit)}")
    return [
        f"store    {without_credentials(components.settings.store)}: {classes} visibility classes",
        f"policy   {components.settings.policy} {components.policy.version}",
        f"audit    {summary(audit)}",
        _references(await unreadable_references(components.store)),
    ]


def _references(names: list[str]) -> str:
    """The line about resources from before the server refused malformed references: they are to be corrected where they come from."""
    if not names:
        return "references  all can be read"
    return f"references  {len(names)} resources have one that cannot be read or followed, the first {names[0]}"
