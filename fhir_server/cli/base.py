"""The command itself, and what its subcommands share: the settings, the wired server, a way to end with a message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fhir_server import __version__
from fhir_server.app import Components, build_components
from fhir_server.errors import Problem
from fhir_server.settings import Settings
from fhir_server.smart.core.security_events import SecurityEvent

T = TypeVar("T")
_RENAMED = {
    "migrate": "copy-store",
    "organisation": "organization",
    "user code": "user password-code",
    "user forget-second-factor": "user reset-second-factor",
    "client invite": "client registration-token",
}


class Group(click.Group):
    """A group of commands that answers a command's former name with its present one."""

    group_class = type

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        former = " ".join([*([ctx.info_name or ""] if ctx.parent else []), *args[:1]])
        if former in _RENAMED:
            raise click.UsageError(f"The command {former!r} is now called {_RENAMED[former]!r}.", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Group)
@click.version_option(__version__)
def main() -> None:
    """FHIR R4 server for a patient-facing record.

    Settings are environment variables FHIR_SERVER_*; see docs/settings.md.
    """


def settings() -> Settings:
    """The settings of this environment, or an end with a message."""
    try:
        return Settings.from_environment()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def with_parts(job: Callable[[Components], Awaitable[T]], chosen: Settings | None = None) -> T:
    """Run ``job`` on the wired server and close it again; an operator's mistake ends with a message, not a trace.

    Only the default store's folder is made here: in a URL that an operator set, a missing folder is likely a mistake.
    """
    used = chosen or settings()
    if used.store == Settings().store:
        make_store_folder(used.store)

    async def run() -> T:
        made = build_components(used)
        try:
            return await job(made)
        finally:
            await made.close()

    try:
        return asyncio.run(run())
    except (ValueError, Problem, OSError) as error:
        raise click.ClickException(str(error)) from None


def with_audit_event(job: Callable[[Components], Awaitable[T]], act: SecurityEvent) -> Callable[[Components], Awaitable[T]]:
    """``job``, and then the operator's act in the journal: as done, or as in vain if the job gave False."""

    async def both(made: Components) -> T:
        result = await job(made)
        await made.smart.record(msgspec.structs.replace(act, done=result is not False))
        return result

    return both


def make_store_folder(store: str) -> None:
    """Make the folder of a SQLite store, open to its owner only, unless it exists.  Ends with a message if that fails."""
    scheme, _, path = store.partition(":///")
    folder = Path(path).parent
    if scheme != "sqlite" or folder.is_dir():
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"Cannot make the folder {folder.absolute()} for the store: {error.strerror}.") from None


def without_credentials(store: str) -> str:
    """The URL of a store without the user and password in it."""
    scheme, slashes, rest = store.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"


def on_terminal() -> bool:
    """Whether a person is watching (so that progress is worth showing)."""
    return sys.stderr.isatty()
