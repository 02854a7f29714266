"""``erase``: removes one patient's record for good."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from fhir_server.app import Components
from fhir_server.cli.base import main, run_with_components
from fhir_server.maintenance.erase import ErasureReport, erase_record
from fhir_server.smart.core.security_events import SecurityEvent, patient_references


@main.command()
@click.argument("patient", metavar="Patient/ID")
@click.option("--reason", required=True, help="The legal ground or order.  It becomes part of the report and of the audit log.")
@click.option("--report", required=True, type=click.Path(exists=False, dir_okay=False, path_type=Path), help="New file for the report.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(patient: str, reason: str, report: Path, yes: bool) -> None:
    """Erase the record of one patient: all versions of all resources that belong to no other patient.

    It cannot be undone.  The report says what was erased (names, numbers of versions, digests) and what remains.
    """
    type, _, id = patient.partition("/")
    if type != "Patient" or not id:
        raise click.ClickException("Name the patient as Patient/ID.")
    if report.exists():
        raise click.ClickException(f"{report} exists already; a report does not replace another one.")
    if not yes:
        click.confirm(f"Erase the record of {patient} for good?", abort=True)

    async def run(components: Components) -> ErasureReport:
        await components.auditor.prepare()  # nothing is erased unless it can be recorded
        now = components.clock()
        done = await erase_record(components.store, components.settings.store, id, reason, now)
        detail = {"reason": reason, "resources": str(len(done.erased)), "digest": done.digest}
        await components.smart.record(SecurityEvent("erase-record", done.verified, about=patient_references(id), detail=detail))
        return done

    done = run_with_components(run, changes_records=True)
    with os.fdopen(os.open(report, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(done), indent=1) + b"\n")
    click.echo(f"{len(done.erased)} resources were erased. The report is in {report}; it says what remains.")
    if not done.verified:
        raise click.ClickException("Something was written to the record meanwhile. Run the command again.")
