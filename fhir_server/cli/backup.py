"""``backup`` and ``restore``: a whole store in one file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.cli.base import (
    is_terminal,
    load_settings,
    main,
    make_store_folder,
    operator_errors,
    run_with_components,
    with_audit_event,
    without_credentials,
)
from fhir_server.maintenance.examination import is_new_store
from fhir_server.maintenance.store_facts import BackupFact, record_fact
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store.backup import restore_backup, write_backup


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write the whole store to the new file FILE, and its SHA-256 to FILE.sha256.

    Servers may read and write the store meanwhile.  The backup is the store as it was when the command began to read; the file
    appears when it is complete and verified.  It holds health records and tokens.
    """

    async def run(components: Components) -> dict[str, int]:
        began = components.clock()
        with click.progressbar(length=1, label="Copying", hidden=not is_terminal()) as bar:

            def show(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            counts = await write_backup(components.settings.store, components.store, file, show)
        await record_fact(components.store, BackupFact(began, counts["resources"]))
        return counts

    counts = run_with_components(with_audit_event(run, SecurityEvent("backup")))
    click.echo(f"{file}: {_shown(counts)}; verified.")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Make the store FHIR_SERVER_STORE from the backup FILE.  There must be no store yet.

    Grants, tokens and sessions are as they were: what was revoked since then is valid again.
    """
    settings = load_settings()
    with operator_errors(settings.store):
        if not asyncio.run(is_new_store(settings.store, may_be_incomplete=True)):
            raise ValueError(f"There is a store at {without_credentials(settings.store)}; a backup is restored to a new one.")
        make_store_folder(settings.store)
        counts = asyncio.run(restore_backup(file, settings.store))
    run_with_components(with_audit_event(_restored, SecurityEvent("restore")))
    click.echo(f"{without_credentials(settings.store)}: {_shown(counts)}; verified.")
    click.echo("Grants, tokens and sessions are those of the backup: end sessions with `fhir-server user sign-out --everyone`.")


async def _restored(components: Components) -> None:
    """Invalidate permissions that a server may have cached for the former store of this name."""
    await components.store.write(lambda transaction: transaction.advance_epoch(None))


def _shown(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
