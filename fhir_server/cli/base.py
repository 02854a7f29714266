"""The command itself, and what its subcommands share: settings, components, audit events and error messages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fhir_server import __version__
from fhir_server.app import Components, build_components
from fhir_server.errors import Problem
from fhir_server.maintenance.examination import require_store, without_credentials
from fhir_server.operation.gate import gated
from fhir_server.operation.state import OperationState
from fhir_server.settings import Settings
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import explain_failure

__all__ = [
    "is_terminal",
    "load_settings",
    "main",
    "make_store_folder",
    "operator_errors",
    "run_with_components",
    "with_audit_event",
    "without_credentials",
]

T = TypeVar("T")
_RENAMED = {
    "migrate": "copy-store",
    "organisation": "organization",
    "user code": "user password-code",
    "user forget-second-factor": "user reset-second-factor",
    "client invite": "client registration-token",
}


class Group(click.Group):
    """A command group that names the new command if a caller uses an old name."""

    group_class = type

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = " ".join([*([ctx.info_name or ""] if ctx.parent else []), *args[:1]])
        if name in _RENAMED:
            raise click.UsageError(f"The command {name!r} is now called {_RENAMED[name]!r}.", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """FHIR R4 server with SMART App Launch and a consent policy.

    Settings are environment variables FHIR_SERVER_*; see docs/settings.md.
    """


def load_settings() -> Settings:
    """Read the settings from the environment.  Raises click.ClickException if one is invalid."""
    try:
        return Settings.from_environment()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def operator_errors(store: str) -> Iterator[None]:
    """Turn what an operator can do something about into a click.ClickException with one sentence: mistakes, failures of the store."""
    try:
        yield
    except (ValueError, Problem, OSError) as error:
        raise click.ClickException(str(error)) from None
    except Exception as error:
        sentence = explain_failure(store, error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from None


def run_with_components(
    job: Callable[[Components], Awaitable[T]],
    settings: Settings | None = None,
    *,
    may_create_store: bool = False,
    changes_records: bool = False,
) -> T:
    """Build the server's components, run ``job`` with them and close them.

    ``settings`` defaults to those of the environment.  Raises click.ClickException for an operator's mistake: also if there is no
    store, unless the command may create one, because a missing store is likely a mistake in a path.  A command that ``changes_records``
    does not begin, and does not go on, while the server is read-only; in maintenance it may.
    """
    used = settings or load_settings()
    state = OperationState(used.operation, refuses=("read-only",))

    async def run() -> T:
        if not may_create_store:
            await require_store(used)
        components = build_components(used, watch_store=(lambda store: gated(store, state)) if changes_records else None)
        try:
            if changes_records:
                await state.begin()
                await state.require_writable()
            return await job(components)
        finally:
            await components.close()

    with operator_errors(used.store):
        return asyncio.run(run())


def with_audit_event(
    job: Callable[[Components], Awaitable[T]], event: SecurityEvent, *, first: bool = False
) -> Callable[[Components], Awaitable[T]]:
    """Return a job that runs ``job`` and then records ``event``.  The event is a failure if ``job`` returns False.

    With ``first`` it is recorded before, because the job shows data.  The job does not run if the audit log cannot be written:
    ValueError.
    """

    async def run_and_record(components: Components) -> T:
        await components.auditor.prepare()
        if first:
            await components.smart.record(event)
            await components.auditor.flush()  # the job may show the log
            return await job(components)
        result = await job(components)
        await components.smart.record(msgspec.structs.replace(event, done=result is not False))
        return result

    return run_and_record


def make_store_folder(store: str) -> None:
    """Create the folder of a SQLite store, with access for its owner only.  Raises click.ClickException if that fails."""
    scheme, _, path = store.partition(":///")
    folder = Path(path).parent
    if scheme != "sqlite" or folder.is_dir():
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"Cannot make the folder {folder.absolute()} for the store: {error.strerror}.") from None


def is_terminal() -> bool:
    """Whether progress bars are useful: standard error is a terminal."""
    return sys.stderr.isatty()
