"""``serve`` and ``demo``: start the server."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any

import click
import uvicorn

from fhir_server.allocator import configure_allocator
from fhir_server.app import Components, application
from fhir_server.cli.base import load_settings, main, operator_errors, run_with_components, without_credentials
from fhir_server.cli.create_store import create_store
from fhir_server.cli.packages import packages_of
from fhir_server.cli.store import LOAD_KEY, load_key, local_date
from fhir_server.clock import MAX_INSTANT
from fhir_server.consent.labeling_version import labeling_digest
from fhir_server.interactions.operation_definitions import operation_definitions
from fhir_server.interactions.subscription_binding import SOCKET_PATH
from fhir_server.maintenance.examination import require_store
from fhir_server.maintenance.input_files import list_files, read_units
from fhir_server.maintenance.load import Loader, LoadReport
from fhir_server.maintenance.store_facts import LabelingFact, find_fact
from fhir_server.observability.logs import configure_logs
from fhir_server.observability.metrics import FOLDER, text_of_all_processes
from fhir_server.observability.metrics_server import MetricsServer
from fhir_server.observability.trace_settings import load_traces
from fhir_server.package_data import data_folder
from fhir_server.packages.product import GUIDE, product_package
from fhir_server.settings import Settings
from fhir_server.smart.demo import MAILBOX, PASSWORD
from fhir_server.store import store_file
from fhir_server.web.connections import ConnectionLimits, LimitedProtocol, open_files
from fhir_server.web.security_headers import security_headers
from fhir_server.web.websockets import SOCKET_OPTIONS, LimitedWebSocket, SocketLimits


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address or host name to listen on.")
@click.option("--port", default=8000, show_default=True, help="TCP port to listen on.")
@click.option("--workers", default=1, show_default=True, help="Number of server processes.")
@click.option("--create-store", "creates_store", is_flag=True, help="Make the store if there is none.")
@click.option("--skip-integrity-check", is_flag=True, help="Do not read the whole store before the start; run doctor regularly instead.")
def serve(host: str, port: int, workers: int, creates_store: bool, skip_integrity_check: bool) -> None:
    """Serve the FHIR API, the OAuth endpoints and the pages.

    Refuses a store that is missing, damaged, foreign, of a later version, or encrypted with another key.
    """
    settings = load_settings()
    try:
        settings.require_key()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if creates_store:
        create_store(settings)
    # Ends with a message if the server cannot start.  uvicorn would print a traceback and restart its workers without end.
    with operator_errors(settings.store):
        load_traces(os.environ)
        asyncio.run(require_store(settings, thorough=not skip_integrity_check))
    run_with_components(_prepare, settings)
    configure(settings)
    with metrics_folder(settings, workers):
        uvicorn.run(**_uvicorn_options(host, port), workers=workers)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="IP address or host name to listen on.")
@click.option("--port", default=8000, show_default=True, help="TCP port to listen on.")
@click.option("--prepare-only", is_flag=True, help="Load the demo data and exit.")
def demo(host: str, port: int, prepare_only: bool) -> None:
    """Load the demo records, accounts and clients, then serve.  Not for production: the passwords are public."""
    os.environ.setdefault("FHIR_SERVER_MODE", "demo")
    os.environ.setdefault("FHIR_SERVER_ORIGIN", f"http://127.0.0.1:{port}")
    settings = _with_messages(load_settings())
    if settings.mode == "production":
        raise click.ClickException("The demo's passwords are public: it does not run with FHIR_SERVER_MODE=production.")
    create_store(settings)
    run_with_components(_load_demo, settings)
    if prepare_only:
        click.echo(f"The demo records are in {without_credentials(settings.store)}.")
        return
    server = _DemoServer(uvicorn.Config(**_uvicorn_options(host, port)), settings)
    with suppress(KeyboardInterrupt):
        server.run()
    sys.exit(0 if server.started else 1)


def _with_messages(settings: Settings) -> Settings:
    """The settings, also for the application that the environment describes, with a folder of messages if no e-mail is set up."""
    if settings.smtp_url or settings.mail_folder:
        return settings
    beside = store_file(settings.store)
    os.environ["FHIR_SERVER_MAIL_FOLDER"] = str((beside.parent if beside else Path("data")) / "messages")
    os.environ.setdefault("FHIR_SERVER_MAIL_FROM", "no-reply@demo.example")
    return load_settings()


async def _prepare(components: Components) -> None:
    """Prepare the store, and warn on standard error if its labels are of other code lists than those in use."""
    await components.prepare()
    settings = components.settings
    fact = await find_fact(components.store, LabelingFact)
    if fact is None or fact.digest != labeling_digest(components.policy, settings.ig_path, settings.codes_path, settings.search_timezone):
        click.echo("Warning: resources may have labels of other code lists than those in use; run fhir-server relabel.", err=True)


async def _load_demo(components: Components) -> None:
    """Load the demo data unless the store has it.  Raises ValueError if a resource is rejected."""
    await components.prepare()
    report = LoadReport()
    profiles = components.service.profiles
    loader = Loader(components.store, components.labeler, components.settings.base, components.clock, profiles=profiles)
    key = await load_key(components.store)
    if await components.store.key_values.get(LOAD_KEY, "demo", 0) is not None:
        return
    for path in list_files((data_folder("seed_bundles"),)):
        for unit in read_units(path, key, local_date(components)):
            await loader.load(unit, report)
    if report.rejects:
        raise ValueError(f"A demo record was rejected: {report.rejects[0].decode()}")
    await packages_of(components).add(product_package(GUIDE, operation_definitions()))
    await components.store.key_values.put(LOAD_KEY, "demo", b"loaded", MAX_INSTANT)


def _uvicorn_options(host: str, port: int) -> dict[str, Any]:
    return {
        "app": "fhir_server.cli.serve:create_application", "factory": True, "host": host, "port": port, "loop": "uvloop",
        "http": "fhir_server.web.connections:LimitedProtocol", **SOCKET_OPTIONS,
        "access_log": False, "server_header": False, "date_header": False, "log_config": None, "log_level": None,
        "timeout_graceful_shutdown": 10,
    }  # fmt: skip


class _DemoServer(uvicorn.Server):
    """Prints how to use the demo once the server accepts connections."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _print_welcome(self._settings)


def create_application() -> object:
    """Return the application with the environment's settings, for uvicorn's worker processes.

    The only process serves its metrics, too, if they have an address of their own.
    """
    settings = load_settings()
    configure_allocator()
    configure(settings)
    LimitedProtocol.security_headers = security_headers(settings.origin)
    LimitedProtocol.limits = ConnectionLimits(
        settings.max_head_seconds, settings.max_body_seconds, settings.max_quiet_seconds, settings.max_head_bytes,
        open_files(settings.max_connections), linger_bytes=2 * settings.max_body_bytes,
    )  # fmt: skip
    LimitedProtocol.socket_url = SOCKET_PATH.encode()
    LimitedWebSocket.limits = SocketLimits(settings.max_head_seconds, settings.max_quiet_seconds)
    with operator_errors(settings.store):
        served = application(settings)
    if served.metrics is not None and settings.metrics_endpoint and FOLDER not in os.environ:
        with operator_errors(settings.store):
            MetricsServer(settings.metrics_endpoint, served.metrics.text, settings.metrics_token)
    return served


def configure(settings: Settings) -> None:
    """Send this process's log where the settings want it.  Raises click.ClickException if the file cannot be opened."""
    with operator_errors(settings.store):
        configure_logs(settings.store, settings.log_level, settings.log_format, settings.log_file)


@contextmanager
def metrics_folder(settings: Settings, workers: int) -> Iterator[None]:
    """Give several server processes a folder in which they add up their metrics; one process needs none.

    If metrics have an address of their own, this process serves the sums there.  Raises click.ClickException if it cannot listen.
    """
    endpoint = settings.metrics_endpoint
    if workers == 1 or not (settings.metrics_token or endpoint):
        yield
        return
    with TemporaryDirectory(prefix="fhir-server-metrics-") as folder, ExitStack() as closing:
        os.environ[FOLDER] = folder
        closing.callback(os.environ.pop, FOLDER)
        if endpoint:
            with operator_errors(settings.store):
                closing.callback(MetricsServer(endpoint, text_of_all_processes, settings.metrics_token).close)
        yield


def _this_command() -> str:
    """The shell command that starts this program."""
    module = Path(sys.argv[0]).name == "__main__.py"
    return shlex.join([sys.executable, "-m", "fhir_server"] if module else sys.argv[:1])


def _where_mail_goes(settings: Settings) -> str:
    if settings.smtp_url:
        return "E-mail goes to the mail server of FHIR_SERVER_SMTP_URL."
    return f'E-mail is not sent but written into {settings.mail_folder}: try "Forgot your user name or password?" with {MAILBOX}.'


def _print_welcome(settings: Settings) -> None:
    click.echo(
        f"""
Ready at {settings.origin} (FHIR base {settings.base})

Sign in at {settings.origin}/ as adult, parent-a, parent-b, newly-adult, proxy-standard, proxy-full, clinician, billing or
privacy-officer. The password of each account is {PASSWORD}

A first call, as the operator of this machine:
  TOKEN=$(FHIR_SERVER_MODE=demo {_this_command()} token --client demo-backend --scope "system/*.cruds")
  curl -H "Authorization: Bearer $TOKEN" "{settings.base}/Patient?_count=5"

{_where_mail_goes(settings)}

An app to try is in examples/home-readings; its README.md has the command that serves it.

For apps: client demo-public (PKCE), redirect URI http://127.0.0.1:8765/callback, discovery at
  {settings.base}/.well-known/smart-configuration
""",
        nl=True,
    )
