"""``load``, ``export`` and ``relabel``: the operator's work on the resources of a store."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, date, datetime
from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.cli.base import is_terminal, main, run_with_components
from fhir_server.clock import MAX_INSTANT
from fhir_server.errors import Problem
from fhir_server.maintenance.export import export_store
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.maintenance.relabel import relabel_store
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
def load(paths: tuple[Path, ...], rejects: Path, shift_dates: bool) -> None:
    """Load FHIR Bundles (transaction, batch, collection) and NDJSON files.

    PATHS are files, plain or .gz, or folders of them.  An interrupted load continues when you run the command again:
    it does not store unchanged resources twice.
    """
    report = run_with_components(lambda components: _load(components, list_files(paths), shift_dates))
    click.echo(f"{report.stored} stored, {report.present} already there, {len(report.rejects)} rejected.")
    if report.rejects:
        rejects.write_bytes(b"".join(line + b"\n" for line in report.rejects))
        raise click.ClickException(f"The reasons are in {rejects}.")


async def _load(components: Components, paths: list[Path], shift_dates: bool) -> LoadReport:
    report = LoadReport()
    loader = Loader(components.store, components.labeler, components.settings.base, components.clock)
    key = await load_key(components.store)
    size = sum(path.stat().st_size for path in paths)
    with click.progressbar(length=size, label="Loading", hidden=not is_terminal()) as bar:
        done = 0
        for path in paths:
            try:
                for unit in read_units(path, key, local_date(components) if shift_dates else None):
                    await loader.load(unit, report)
                    bar.update(done + unit.bytes_read - bar.pos)
            except Problem as problem:
                if problem.kind == "busy":
                    raise  # nothing is wrong with the file
                line = {"source": path.name, "outcome": json.loads(problem.outcome())}
                report.rejects.append(json.dumps(line).encode())
            done += path.stat().st_size
            bar.update(done - bar.pos)
    return report


@main.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
def export(out: Path) -> None:
    """Write the whole store as NDJSON, one file per resource type, and print the counts."""
    counts = run_with_components(lambda components: export_store(components.store, out))
    for type, count in counts.items():
        click.echo(f"{count:8d}  {type}")


@main.command()
def relabel() -> None:
    """Label all stored resources again, after a change of policy, value sets or departments."""
    report = run_with_components(
        lambda components: relabel_store(components.store, components.labeler, components.settings.base, components.clock())
    )
    click.echo(f"{report.examined} resources labeled, {report.changed} changed.")
