"""``journal`` and ``audit``: print the audit log, verify it, and begin a new chain."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click

from fhir_server.app import Components
from fhir_server.audit import LOG_NAME
from fhir_server.audit.anchors import anchor_text
from fhir_server.audit.entries import is_of_request
from fhir_server.audit.verification import Verified, summary, verify_log_of
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.errors import Problem
from fhir_server.request_ids import is_request_id
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store


@main.command()
@click.option("--after", type=int, default=0, show_default=True, help="Print only lines with a larger number.")
@click.option("--request", metavar="ID", default="", help="Print only lines of the request with this id (X-Request-Id).")
def journal(after: int, request: str) -> None:
    """Print the audit log.

    Each line is a number, a tab and the stored JSON, with an R4 AuditEvent as "event".  Printing it is recorded.
    """

    if request and not is_request_id(request):
        raise click.BadParameter("An id of a request is a UUID, or 16 to 64 hexadecimal digits.", param_hint="--request")

    async def show(components: Components) -> None:
        try:
            async for number, line in read_audit_log(components.store, after):
                if not request or is_of_request(line, request):
                    click.echo(f"{number}\t{line.decode()}")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough (| head); Python would flush standard output once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    detail = {"after": str(after)} | ({"request": request} if request else {})
    run_with_components(with_audit_event(show, SecurityEvent("read-audit", detail=detail), first=True))


async def read_audit_log(store: Store, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the number and text of each audit log line with a number above ``after``."""
    while batch := await store.read_log(LOG_NAME, after):
        for line in batch:
            yield line
        after = batch[-1][0]


@main.group()
def audit() -> None:
    """Verify the audit log, print an anchor, and begin a new chain."""


@audit.command("verify")
@click.option(
    "--anchors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with anchors, from FHIR_SERVER_AUDIT_ANCHOR_FILE or `audit anchor`.  [default: FHIR_SERVER_AUDIT_ANCHOR_FILE]",
)
def verify_log(anchors: Path | None) -> None:
    """Verify the chain of the audit log: find lines that were changed, removed, added or cut off at the end.

    Exits with status 1 if something is found.  It writes nothing.
    """

    async def check(components: Components) -> Verified:
        return await verify_log_of(components.store, components.settings, anchors)

    result = run_with_components(check)
    for text in (*result.findings, *result.notes):
        click.echo(text)
    click.echo(summary(result))
    if result.count:
        raise click.ClickException("The audit log is not what this server wrote.")


@audit.command("anchor")
def anchor() -> None:
    """Print the head of the chain as a line of an anchor file, to be kept on another machine."""

    async def read(components: Components) -> str:
        head = await components.auditor.head()
        if head is None:
            raise Problem("not_found", "The audit log has no head yet.")
        return anchor_text(head, components.clock())

    click.echo(run_with_components(read), nl=False)


@audit.command("restart")
@click.option("--reason", required=True, help="Why the chain cannot be continued.  It becomes part of the log.")
def restart(reason: str) -> None:
    """Begin a new chain, because the secret key or the head of the log is lost.

    The first line of the new chain has the digest of all lines before it, and the reason.  Stop the server first.
    """

    async def begin(components: Components) -> None:
        await components.auditor.begin_again(reason)
        await components.smart.record(SecurityEvent("restart-audit", detail={"reason": reason}))

    run_with_components(begin)
    click.echo("A new chain has begun.")
