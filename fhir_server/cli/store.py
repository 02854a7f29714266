"""``load``, ``export`` and ``relabel``: the operator's work on the resources of a store."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from fhir_server.app import Components
from fhir_server.cli.base import is_terminal, main, run_with_components, with_audit_event
from fhir_server.cli.create_store import record_labeling
from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.maintenance.examination import is_without_resources
from fhir_server.maintenance.export import export_store
from fhir_server.maintenance.input_files import Unit, list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.maintenance.relabel import RelabelReport, relabel_store
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store

LOAD_KEY = "load-key"


async def load_key(store: Store) -> bytes:
    """Return the store's secret from which ids of loaded resources are derived.  Creates it on first use."""
    await store.key_values.put_if_absent(LOAD_KEY, "key", secrets.token_bytes(32), MAX_INSTANT)
    return await store.key_values.get(LOAD_KEY, "key", 0) or b""


def local_date(components: Components) -> date:
    """The current date in the institution's time zone."""
    return datetime.fromtimestamp(components.clock() / 1_000_000, UTC).astimezone(components.policy.timezone).date()


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--rejects",
    default="rejects.ndjson",
    show_default=True,
    type=click.Path(path_type=Path),
    help="File for rejected resources, one JSON object per line with source and OperationOutcome.",
)
@click.option("--shift-dates", is_flag=True, help="Move dates by whole days so that each Bundle's timestamp is today.")
@click.option(
    "--from-base",
    "bases",
    multiple=True,
    metavar="URL",
    help="FHIR base URL of the system the files come from: its resources have the same ids here. Can be repeated.",
)
def load(paths: tuple[Path, ...], rejects: Path, shift_dates: bool, bases: tuple[str, ...]) -> None:
    """Load FHIR Bundles (transaction, batch, collection) in JSON or XML, and NDJSON files.

    PATHS are files, plain or .gz, or folders of them.  An interrupted load continues when you run the command again:
    it does not store unchanged resources twice.  References such as Practitioner?identifier=... lead to the one resource
    that matches, which may be in any of the files.
    """
    event = SecurityEvent("load", detail={"paths": " ".join(map(str, paths))})
    report = run_with_components(
        with_audit_event(lambda components: _load(components, list_files(paths), shift_dates, bases), event), changes_records=True
    )
    click.echo(f"{report.stored} stored, {report.present} already there, {len(report.rejects)} rejected.")
    if report.rejects:
        rejects.write_bytes(b"".join(line + b"\n" for line in report.rejects))
        raise click.ClickException(f"The reasons are in {rejects}.")


async def _load(components: Components, paths: list[Path], shift_dates: bool, bases: tuple[str, ...]) -> LoadReport:
    report = LoadReport()
    if await is_without_resources(components.settings.store):
        await record_labeling(components)  # all that it will hold gets labels of the lists in use
    profiles = components.service.profiles
    loader = Loader(components.store, components.labeler, components.settings.base, components.clock, profiles=profiles)
    read = partial(read_units, key=await load_key(components.store), today=local_date(components) if shift_dates else None, bases=bases)
    size = sum(path.stat().st_size for path in paths)
    again: list[Path] = []
    with click.progressbar(length=size, label="Loading", hidden=not is_terminal()) as bar:
        done = 0
        for path in paths:
            one = await _load_file(loader, path, read, partial(_advance, bar, done))
            report.stored += one.stored
            report.present += one.present
            if one.unresolved:
                again.append(path)  # a file that comes later may have what its conditional references name
            else:
                report.rejects += one.rejects
            done += path.stat().st_size
            _advance(bar, done, 0)
    for path in again:
        one = await _load_file(loader, path, read, lambda _: None)
        report.stored += one.stored
        report.rejects += one.rejects
    return report


def _advance(bar: Any, done: int, read: int) -> None:
    """Show that the files before the current one, of ``done`` bytes, and ``read`` bytes of the current one are loaded."""
    bar.update(done + read - bar.pos)


async def _load_file(loader: Loader, path: Path, read: Callable[[Path], Iterator[Unit]], progress: Callable[[int], None]) -> LoadReport:
    """Load one file; ``progress`` is called with the number of bytes read."""
    report = LoadReport()
    try:
        for unit in read(path):
            await loader.load(unit, report)
            progress(unit.bytes_read)
    except Problem as problem:
        if problem.kind == "busy":
            raise  # nothing is wrong with the file
        report.rejects.append(json.dumps({"source": path.name, "outcome": json.loads(problem.outcome())}).encode())
    return report


@main.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
def export(out: Path) -> None:
    """Write the whole store as NDJSON, one file per resource type, and print the counts."""
    event = SecurityEvent("export", detail={"folder": str(out)})
    counts = run_with_components(with_audit_event(lambda components: export_store(components.store, out), event, first=True))
    for type, count in counts.items():
        click.echo(f"{count:8d}  {type}")


@main.command()
def relabel() -> None:
    """Label all stored resources again, after a change of policy, value sets or departments."""

    async def run(components: Components) -> RelabelReport:
        report = await relabel_store(components.store, components.labeler, components.settings.base, components.clock())
        await record_labeling(components)
        return report

    report = run_with_components(with_audit_event(run, SecurityEvent("relabel")), changes_records=True)
    click.echo(f"{report.examined} resources labeled, {report.changed} changed.")
