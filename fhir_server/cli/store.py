"""``load``, ``export``, ``relabel``, ``policy``, ``doctor`` and ``journal``."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.audit import LOG_NAME, broken_links
from fhir_server.cli.base import main, on_terminal, settings, with_parts, without_credentials
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent import policy as policies
from fhir_server.errors import Problem
from fhir_server.maintenance.export import export_store
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.maintenance.relabel import relabel_store
from fhir_server.store import Store

LOAD_KEY = "load-key"


async def load_key(store: Store) -> bytes:
    """The secret from which ids of loaded resources are drawn; made once a store."""
    await store.key_values.put_if_absent(LOAD_KEY, "key", secrets.token_bytes(32), MAX_INSTANT)
    return await store.key_values.get(LOAD_KEY, "key", 0) or b""


def today(made: Components) -> date:
    """The civil day in the institution's time zone."""
    return datetime.fromtimestamp(made.clock() / 1_000_000, UTC).astimezone(made.policy.timezone).date()


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--rejects",
    default="rejects.ndjson",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where what is refused is noted.",
)
@click.option("--shift-dates", is_flag=True, help="Move dates by whole days so that each Bundle's timestamp falls on today.")
def load(paths: tuple[Path, ...], rejects: Path, shift_dates: bool) -> None:
    """Load Bundles (transaction, batch, collection) and NDJSON files, plain or .gz, or folders of them.

    A load that was interrupted goes on when started again: what is already there is not stored twice.
    """
    tally = with_parts(lambda made: _load(made, list_files(paths), shift_dates))
    click.echo(f"{tally.stored} stored, {tally.present} already there, {len(tally.rejects)} refused.")
    if tally.rejects:
        rejects.write_bytes(b"".join(line + b"\n" for line in tally.rejects))
        raise click.ClickException(f"The reasons are in {rejects}.")


async def _load(made: Components, paths: list[Path], shift: bool) -> LoadReport:
    tally = LoadReport()
    loader = Loader(made.store, made.labeler, made.settings.base, made.clock)
    key = await load_key(made.store)
    size = sum(path.stat().st_size for path in paths)
    with click.progressbar(length=size, label="Loading", hidden=not on_terminal()) as bar:
        done = 0
        for path in paths:
            try:
                for unit in read_units(path, key, today(made) if shift else None):
                    await loader.load(unit, tally)
                    bar.update(done + unit.bytes_read - bar.pos)
            except Problem as problem:
                line = {"source": path.name, "outcome": json.loads(problem.outcome())}
                tally.rejects.append(json.dumps(line).encode())
            done += path.stat().st_size
            bar.update(done - bar.pos)
    return tally


@main.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
def export(out: Path) -> None:
    """Write the whole store as NDJSON, one file a type."""
    counts = with_parts(lambda made: export_store(made.store, out))
    for type, count in counts.items():
        click.echo(f"{count:8d}  {type}")


@main.command()
def relabel() -> None:
    """Label every row afresh, after a change of policy, value sets or departments."""
    report = with_parts(lambda made: relabel_store(made.store, made.labeler, made.settings.base, made.clock()))
    click.echo(f"{report.examined} rows labeled, {report.changed} changed.")


@main.command()
@click.argument("name", required=False)
def policy(name: str | None) -> None:
    """Check a policy file (or a shipped policy) and show what it says."""
    chosen = name or settings().policy
    try:
        loaded = policies.load(chosen)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{chosen}: version {loaded.version}, time zone {loaded.timezone}, {len(loaded.rules)} rules")
    for rule in loaded.rules:
        click.echo(f"{rule.effect:7} {','.join(sorted(rule.actors)):30} {rule.id} ({rule.source})")


@main.command()
def doctor() -> None:
    """Check the settings, the store and the audit journal."""

    async def look(made: Components) -> list[str]:
        async with made.store.snapshot() as snapshot:
            classes = len(await snapshot.classes())
        lines = [line async for line in _journal(made)]
        broken = broken_links(lines)
        if broken:
            raise ValueError(f"The audit journal's chain is broken at line {broken[0]} ({len(broken)} in all).")
        return [
            f"store    {without_credentials(made.settings.store)}: {classes} visibility classes",
            f"policy   {made.settings.policy} {made.policy.version}",
            f"audit    {len(lines)} lines, chain unbroken",
        ]

    for line in with_parts(look):
        click.echo(line)


@main.command()
@click.option("--after", type=int, default=0, help="Only the lines after this number.")
def journal(after: int) -> None:
    """Print the audit journal: its number, a tab and the line as it is kept, JSON with an AuditEvent as ``event``."""

    async def show(made: Components) -> None:
        async for number, line in _journal(made, after):
            click.echo(f"{number}\t{line.decode()}")

    with_parts(show)


async def _journal(made: Components, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
    while batch := await made.store.read_log(LOG_NAME, after):
        for line in batch:
            yield line
        after = batch[-1][0]
