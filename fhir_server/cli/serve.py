"""``serve`` and ``demo``."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

import click
import uvicorn

from fhir_server.app import Components, application
from fhir_server.cli.base import main, make_store_folder, settings, with_parts, without_credentials
from fhir_server.cli.store import LOAD_KEY, load_key, today
from fhir_server.clock import MAX_INSTANT
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.package_data import data_folder
from fhir_server.settings import Settings
from fhir_server.smart.demo import PASSWORD


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, help="Server processes.")
def serve(host: str, port: int, workers: int) -> None:
    """Serve the FHIR API, OAuth and the pages."""
    chosen = settings()
    try:
        chosen.require_key()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    make_store_folder(chosen.store)
    # Ends with a message if the server cannot start; uvicorn would print a traceback, and restart workers forever.
    with_parts(Components.prepare, chosen)
    uvicorn.run(**_options(host, port), workers=workers)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--prepare-only", is_flag=True, help="Load the store and stop.")
def demo(host: str, port: int, prepare_only: bool) -> None:
    """Load the demo records, people and clients, then serve."""
    os.environ.setdefault("FHIR_SERVER_MODE", "demo")
    os.environ.setdefault("FHIR_SERVER_ORIGIN", f"http://127.0.0.1:{port}")
    chosen = settings()
    if chosen.mode == "production":
        raise click.ClickException("The demo's passwords are public: it does not run with FHIR_SERVER_MODE=production.")
    make_store_folder(chosen.store)
    with_parts(_load_demo, chosen)
    if prepare_only:
        click.echo(f"The demo records are in {without_credentials(chosen.store)}.")
        return
    server = _Announced(uvicorn.Config(**_options(host, port)), chosen)
    with suppress(KeyboardInterrupt):
        server.run()
    sys.exit(0 if server.started else 1)


async def _load_demo(made: Components) -> None:
    await made.prepare()
    tally = LoadReport()
    loader = Loader(made.store, made.labeler, made.settings.base, made.clock)
    key = await load_key(made.store)
    if await made.store.key_values.get(LOAD_KEY, "demo", 0) is not None:
        return
    for path in list_files((data_folder("seed_bundles"),)):
        for unit in read_units(path, key, today(made)):
            await loader.load(unit, tally)
    if tally.rejects:
        raise ValueError(f"The demo records were refused: {tally.rejects[0].decode()}")
    await made.store.key_values.put(LOAD_KEY, "demo", b"loaded", MAX_INSTANT)


def _options(host: str, port: int) -> dict[str, Any]:
    return {
        "app": "fhir_server.cli.serve:created", "factory": True, "host": host, "port": port, "loop": "uvloop",
        "http": "httptools", "access_log": False, "server_header": False, "date_header": False, "log_level": "warning",
        "timeout_graceful_shutdown": 10,
    }  # fmt: skip


class _Announced(uvicorn.Server):
    """A server that says how to use it once it listens: not before, when a first call would be refused."""

    def __init__(self, config: uvicorn.Config, chosen: Settings) -> None:
        super().__init__(config)
        self._chosen = chosen

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _welcome(self._chosen)


def created() -> object:
    """The application of this environment's settings, for uvicorn's worker processes."""
    return application(settings())


def _this_command() -> str:
    """How a shell starts this program again."""
    module = Path(sys.argv[0]).name == "__main__.py"
    return shlex.join([sys.executable, "-m", "fhir_server"] if module else sys.argv[:1])


def _welcome(chosen: Settings) -> None:
    click.echo(
        f"""
Ready at {chosen.origin} (FHIR base {chosen.base})

Sign in on {chosen.origin}/ as adult, parent-a, parent-b, newly-adult, proxy-standard, proxy-full, clinician, billing or
privacy-officer; the password of each is {PASSWORD}

A first call, as the operator of this machine:
  TOKEN=$(FHIR_SERVER_MODE=demo {_this_command()} token --client demo-backend --scope "system/*.cruds")
  curl -H "Authorization: Bearer $TOKEN" "{chosen.base}/Patient?_count=5"

Apps: client demo-public (PKCE), redirect http://127.0.0.1:8765/callback; discovery at
  {chosen.base}/.well-known/smart-configuration
""",
        nl=True,
    )
