"""``copy-store``: copies one store into another."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import click

from fhir_server.cli.base import is_terminal, load_settings, main, run_with_components, without_credentials
from fhir_server.errors import Problem
from fhir_server.maintenance.copy_store import copy_store
from fhir_server.smart.core.security_events import SecurityEvent


@main.command("copy-store")
@click.argument("source")
@click.argument("target")
def copy_store_command(source: str, target: str) -> None:
    """Copy the store SOURCE into the empty store TARGET and compare them.

    Both are URLs as in FHIR_SERVER_STORE: SOURCE is sqlite:///... or mongodb://..., TARGET is mongodb://...
    Stop the server first.  An interrupted copy continues when you run the command again.  The copy is recorded in the audit log of
    SOURCE, and so of TARGET, which needs FHIR_SERVER_SECRET_KEY.
    """
    event = SecurityEvent("copy-store", detail={"target": without_credentials(target)})
    run_with_components(lambda components: components.smart.record(event), dataclasses.replace(load_settings(), store=source))
    try:
        summary = asyncio.run(_copy(source, target))
    except (ValueError, Problem, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Copied and compared: {summary}")


async def _copy(source: str, target: str) -> Any:
    bars: dict[str, Any] = {}

    def show_progress(what: str, done: int, total: int) -> None:
        if what not in bars:
            for bar in bars.values():
                bar.render_finish()
            bars[what] = click.progressbar(length=total, label=f"{what:20}", hidden=not is_terminal())
            bars[what].render_progress()
        bars[what].update(done - bars[what].pos)

    try:
        return await copy_store(source, target, show_progress)
    finally:
        for bar in bars.values():
            bar.render_finish()
