"""``doctor``: examines the installation and changes nothing."""

from __future__ import annotations

import asyncio

import click

from fhir_server.cli.base import load_settings, main, operator_errors
from fhir_server.maintenance.examination import examine


@main.command()
@click.option("--backup-days", type=click.IntRange(min=1), help="Fail if the last backup is older than this many days.")
def doctor(backup_days: int | None) -> None:
    """Examine the settings and the store, without changing anything.

    Looks at the store's integrity, schema, secret key, labels, audit log, references and clock, and at the age of the last
    backup.  Prints a sentence about each, and exits with status 1 if there is a problem.
    """
    settings = load_settings()
    with operator_errors(settings.store):
        findings = asyncio.run(examine(settings, backup_days=backup_days))
    for finding in findings:
        mark = "PROBLEM: " if finding.level == "problem" else ""
        click.echo(f"{finding.subject:10}  {mark}{finding.sentence}")
    if any(finding.level == "problem" for finding in findings):
        raise click.exceptions.Exit(1)
