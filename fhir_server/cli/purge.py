"""``purge``, ``audit purge`` and ``purge-history``: remove what need not be kept any longer; ``audit verify-archive``."""

from __future__ import annotations

import getpass
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import click

from fhir_server.app import Components
from fhir_server.audit.anchors import read_anchors
from fhir_server.audit.archive import ArchiveWriter, verify_archive
from fhir_server.audit.chain import ChainKeys
from fhir_server.audit.purge import PurgePlan, plan, purge
from fhir_server.cli.audit import audit
from fhir_server.cli.base import load_settings, main, operator_errors, run_with_components
from fhir_server.clock import instant_text, micros_of
from fhir_server.maintenance.purge_history import HistoryPurge, purge_history
from fhir_server.maintenance.remnants import remove_remnants
from fhir_server.smart.core.context import DAY
from fhir_server.smart.core.security_events import SecurityEvent


class _Purge(NamedTuple):
    """What is to be purged, and what is to be recorded about it."""

    before: int
    reason: str
    archive: Path | None
    rewrite: bool


@audit.command("purge")
@click.option("--before", required=True, metavar="DATE", help="Remove lines recorded before this day or instant.")
@click.option("--reason", required=True, help="The retention rule or order.  It becomes part of the audit log.")
@click.option(
    "--archive", type=click.Path(exists=False, dir_okay=False, path_type=Path), help="New file to which the lines are written first."
)
@click.option("--below-minimum", is_flag=True, help="Confirm that lines younger than FHIR_SERVER_AUDIT_MINIMUM_DAYS may go.")
@click.option("--rewrite/--no-rewrite", default=True, show_default=True, help="Write SQLite's file anew, so that nothing is left in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_audit(before: str, reason: str, archive: Path | None, below_minimum: bool, rewrite: bool, yes: bool) -> None:
    """Remove the lines of the audit log from before a day, and record that in the log.

    The log is verified first.  Servers may run; a purge that is interrupted is continued by the next one.
    """
    if archive is not None and archive.exists():
        raise click.ClickException(f"{archive} exists already; an archive does not replace another file.")

    async def run(components: Components) -> PurgePlan:
        instant = instant_of(before, components)
        _require_age(instant, components, below_minimum)
        if not yes:
            click.confirm(f"Remove all lines of the audit log from before {instant_text(instant)} for good?", abort=True)
        return await purge_lines(components, _Purge(instant, reason, archive, rewrite))

    run_with_components(run, changes_records=True)


def _require_age(before: int, components: Components, confirmed: bool) -> None:
    days = components.settings.audit_minimum_days
    if before > components.clock() - days * DAY and not confirmed:
        raise ValueError(
            f"Lines younger than {days} days (FHIR_SERVER_AUDIT_MINIMUM_DAYS) must be kept. If you may remove them, say --below-minimum."
        )


async def purge_lines(components: Components, wanted: _Purge) -> PurgePlan:
    """Purge the audit log, and say what was done."""
    settings, log = components.settings, components.auditor
    await log.prepare()
    anchor_file = Path(settings.audit_anchor_file) if settings.audit_anchor_file else None
    anchors = read_anchors(anchor_file) if anchor_file is not None and anchor_file.exists() else []
    detail = {"reason": wanted.reason, "by": operator_name(), "before": instant_text(wanted.before)}
    with ArchiveWriter(wanted.archive, log.keys) if wanted.archive else nullcontext() as archive:
        found = await plan(components.store, log, wanted.before, anchors, archive.add if archive else None)
        if archive is not None:
            detail["archive"] = archive.finish(found.after)
    if found.lines:
        await purge(components.store, log, found, SecurityEvent("purge-audit", detail=detail), components.clock)
    click.echo(f"{found.lines} lines of the audit log were purged.")
    if found.lines and wanted.rewrite:
        click.echo(await remove_remnants(components.store, settings.store) or "Nothing of them is left in the store's files.")
    return found


@main.command("purge-history")
@click.option("--before", required=True, metavar="DATE", help="Remove versions that were written before this day or instant.")
@click.option("--reason", required=True, help="The retention rule or order.  It becomes part of the audit log.")
@click.option("--rewrite/--no-rewrite", default=True, show_default=True, help="Write SQLite's file anew, so that nothing is left in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_earlier_versions(before: str, reason: str, rewrite: bool, yes: bool) -> None:
    """Remove earlier versions of all resources that were written before a day.  Current versions and deletions stay.

    Servers may run.  A purge that is interrupted hides all of them at once; the next one removes the rest.
    """

    async def run(components: Components) -> HistoryPurge:
        instant = instant_of(before, components)
        if instant > components.clock():
            raise ValueError("The day is in the future.")
        if not yes:
            click.confirm(f"Remove all earlier versions from before {instant_text(instant)} for good?", abort=True)
        return await purge_versions(components, _Purge(instant, reason, None, rewrite))

    run_with_components(run, changes_records=True)


async def purge_versions(components: Components, wanted: _Purge) -> HistoryPurge:
    """Purge earlier versions, and say what was done.  It is recorded before they go from all answers, and when it is done."""
    await components.auditor.prepare()  # nothing is purged unless it can be recorded
    detail = {"reason": wanted.reason, "by": operator_name(), "before": instant_text(wanted.before)}
    await components.smart.record(SecurityEvent("purge-history", detail=detail))
    done = await purge_history(components.store, wanted.before)
    if done.versions:
        counts = {"versions": str(done.versions), "resources": str(done.resources)}
        await components.smart.record(SecurityEvent("purge-history", detail=detail | counts))
    click.echo(f"{done.versions} earlier versions of {done.resources} resources were purged.")
    if done.versions and wanted.rewrite:
        click.echo(await remove_remnants(components.store, components.settings.store) or "Nothing of them is left in the store's files.")
    return done


@main.command("purge")
@click.option("--rewrite/--no-rewrite", default=False, show_default=True, help="Write SQLite's file anew, so that nothing is left in it.")
def purge_by_settings(rewrite: bool) -> None:
    """Remove what is older than FHIR_SERVER_AUDIT_DAYS and FHIR_SERVER_HISTORY_DAYS say.  For a daily timer.

    Servers may run.  It does not ask.
    """

    async def run(components: Components) -> None:
        settings, now = components.settings, components.clock()
        if not settings.audit_days and not settings.history_days:
            raise ValueError("Neither FHIR_SERVER_AUDIT_DAYS nor FHIR_SERVER_HISTORY_DAYS is set, so everything is kept.")
        if settings.history_days:
            reason = f"FHIR_SERVER_HISTORY_DAYS={settings.history_days}"
            await purge_versions(components, _Purge(now - settings.history_days * DAY, reason, None, rewrite))
        if settings.audit_days:
            reason = f"FHIR_SERVER_AUDIT_DAYS={settings.audit_days}"
            await purge_lines(components, _Purge(now - settings.audit_days * DAY, reason, None, rewrite))

    run_with_components(run, changes_records=True)


def operator_name() -> str:
    """The account of the operating system that runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return "unknown"


def instant_of(text: str, components: Components) -> int:
    """The instant of an ISO 8601 date or time; without a time zone, in the institution's.  Raises ValueError for other text."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date or instant such as 2020-01-31 or 2020-01-31T12:00:00Z.") from None
    return micros_of(parsed if parsed.tzinfo else parsed.replace(tzinfo=components.policy.timezone))


@audit.command("verify-archive")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--anchors", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with anchors to compare.")
def verify_archived(file: Path, anchors: Path | None) -> None:
    """Verify an archive of purged lines, without the store: with FHIR_SERVER_SECRET_KEY alone.

    Exits with status 1 if something is found.
    """
    settings = load_settings()
    with operator_errors(settings.store):
        result = verify_archive(file, ChainKeys.of(settings), read_anchors(anchors) if anchors else [])
    for text in result.findings[:20]:
        click.echo(text)
    click.echo(f"{result.lines} lines, digest {result.digest}; {result.anchors} anchors fit.")
    if result.findings:
        raise click.ClickException("The archive is not what this server wrote.")
