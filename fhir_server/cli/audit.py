"""``journal`` and ``audit``: print the audit log, verify it, and begin a new chain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, get_args

import click

from fhir_server.app import Components
from fhir_server.audit import LOG_NAME
from fhir_server.audit.anchors import anchor_text
from fhir_server.audit.entries import is_of_request
from fhir_server.audit.forwarding import PORTION, CursorFile, Format, formatter, require_same_log
from fhir_server.audit.verification import Verified, summary, verify_log_of
from fhir_server.cli.base import main, run_with_components, with_audit_event
from fhir_server.errors import Problem
from fhir_server.request_ids import is_request_id
from fhir_server.smart.core.security_events import SecurityEvent
from fhir_server.store import Store

_FOLLOW_SECONDS: Final = 1.0


@main.command()
@click.option("--after", type=int, help="Print only lines with a larger number.  [default: 0, or where the cursor is]")
@click.option("--request", metavar="ID", default="", help="Print only lines of the request with this id (X-Request-Id).")
@click.option("--follow", is_flag=True, help="Go on with lines as they are stored, until SIGTERM or Ctrl-C.")
@click.option("--format", "sort", type=click.Choice(get_args(Format)), default="text", show_default=True, help="See below.")
@click.option("--cursor", type=click.Path(dir_okay=False, path_type=Path), help="File that keeps where to go on in the next run.")
def journal(after: int | None, request: str, follow: bool, sort: Format, cursor: Path | None) -> None:
    """Print the audit log.  Printing it is recorded.

    text: a number, a tab and the stored JSON, with an R4 AuditEvent as "event".  json: the same as one object, with "number".
    syslog: RFC 5424 messages of the facility "log audit" with the AuditEvent as text, one a line; syslog-octets: with their lengths
    (RFC 5425, RFC 6587), for TLS and TCP.
    """

    if request and not is_request_id(request):
        raise click.BadParameter("An id of a request is a UUID, or 16 to 64 hexadecimal digits.", param_hint="--request")

    async def show(components: Components) -> None:
        kept = CursorFile(cursor) if cursor else None
        found = kept.load() if kept and after is None else None
        if found is not None:
            await require_same_log(components.store, found)
        begin = after if after is not None else found.number if found else 0
        stop = asyncio.Event()
        if follow:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, stop.set)
            loop.add_signal_handler(signal.SIGINT, stop.set)
        try:
            await _print_log(components.store, begin, formatter(sort), kept, stop if follow else None, request)
        except BrokenPipeError:  # the reader has seen enough (| head); Python would flush standard output once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    detail = {"after": "the cursor" if after is None and cursor else str(after or 0)} | ({"request": request} if request else {})
    event = SecurityEvent("read-audit", detail=detail)
    run_with_components(with_audit_event(show, event, first=True))


async def _print_log(
    store: Store,
    after: int,
    as_bytes: Callable[[int, bytes], bytes],
    kept: CursorFile | None,
    stop: asyncio.Event | None,
    request: str,
) -> None:
    """Print lines in portions, each with the cursor after it; without ``stop`` until the end of the log, else until it is set.

    ``request``: only lines of the request with this id; "": all.
    """
    output = sys.stdout.buffer
    while stop is None or not stop.is_set():
        lines = await store.read_log(LOG_NAME, after, PORTION)
        for number, line in lines:
            if not request or is_of_request(line, request):
                output.write(as_bytes(number, line))
        output.flush()
        if lines:
            after = lines[-1][0]
            if kept is not None:
                kept.save(*lines[-1])
        elif stop is None:
            return
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _FOLLOW_SECONDS)


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
