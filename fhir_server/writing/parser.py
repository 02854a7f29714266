"""Parses and validates received bodies.  Large ones in another process: a thread would hold Python's global lock.

A body is large by its bytes, or by the objects in it, each of which may take tenths of a millisecond to validate.  The value of
a large resource is then made here in slices, between which others go on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import nullcontext, suppress
from typing import Any, Final

import msgspec

from fhir_server import budget, jsontext
from fhir_server.errors import Issue, Problem
from fhir_server.json_slices import value_in_steps
from fhir_server.resources import bundle_rules
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.entry_resources import linked_resource
from fhir_server.writing.parse_worker import LENGTH_BYTES, Links, Parsed, Task, converted

_LARGE_BYTES: Final = 100_000
_MANY_OBJECTS: Final = 250
LARGEST_CONVERTED: Final = 50_000  # bytes that are converted from or to XML where they are needed
_VERY_LARGE_BYTES: Final = 4 * 1024 * 1024  # of which a process needs several times the memory, so that only one works on it at a time
_PROCESSES: Final = 2
_SECONDS: Final = 10.0  # CPU time for one body, where no budget says less


def is_large(text: bytes) -> bool:
    """Whether a body is parsed in another process."""
    return len(text) > _LARGE_BYTES or text.count(b"{") > _MANY_OBJECTS


class Parser:
    """Parses bodies.  One per server process.  It starts its processes when the first large bodies come."""

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: the largest text of one resource."""
        self.max_bytes = max_bytes
        self._idle: list[Process] = []
        self._turns = asyncio.Semaphore(_PROCESSES)
        self._very_large = asyncio.Semaphore(1)

    @property
    def too_large(self) -> Problem:
        """The Problem of a resource that is larger than any may be."""
        return Problem("too_large", f"The resource is larger than {self.max_bytes} bytes, the limit for a single resource.")

    async def draft(self, text: bytes, type: str | None = None, *, base: str = "", conditional: bool = False) -> Draft:
        """As :func:`~fhir_server.writing.draft.parse_draft`.

        Also raises Problem ``too_large`` for a text that is larger than any resource may be, and ``too_costly``.
        """
        if len(text) > self.max_bytes:
            raise self.too_large
        if not is_large(text):
            return parse_draft(text, type, base=base, conditional=conditional)
        parsed, _ = await self._run(Task("draft", len(text), _SECONDS, type, base, conditional), [text])
        value = {name: await value_in_steps(part) for name, part in parsed.parts.items()}
        return Draft(parsed.type, value, parsed.parts, frozenset(parsed.references))

    async def entries(self, text: bytes) -> tuple[dict[str, Any] | None, list[bytes]]:
        """The members of a Bundle without its entries, and the texts of those; None for a text that is no object.

        Raises Problem ``invalid`` for a batch or transaction that breaks R4's rules for Bundles, or ``too_costly``.
        """
        if not is_large(text):
            value = jsontext.parse(text)
            if not isinstance(value, dict):
                return None, []
            bundle_rules.require_valid_if_processed(value)
            entries = jsontext.items(jsontext.members(text)["entry"]) if isinstance(value.get("entry"), list) else []
            return {name: part for name, part in value.items() if name != "entry" or not isinstance(part, list)}, entries
        task, texts = Task("entries", len(text), _SECONDS), [text]
        del text
        parsed, entries = await self._run(task, texts)
        return {name: await value_in_steps(part) for name, part in parsed.parts.items()} or None, entries

    async def linked(self, text: bytes, full_url: str, links: BundleLinks) -> bytes:
        """As :func:`~fhir_server.writing.entry_resources.linked_resource`.  Also raises Problem ``too_costly``."""
        if not is_large(text):
            return linked_resource(text, full_url, links)
        task = Task("links", len(text), _SECONDS, full_url=full_url, links=Links.of(links))
        _, (resource,) = await self._run(task, [text])
        return resource

    async def from_xml(self, text: bytes) -> bytes:
        """As :func:`~fhir_server.fhir_xml.to_json`.  Also raises Problem ``too_costly``."""
        return await self._converted(Task("from_xml", len(text), _SECONDS), text)

    async def to_xml(self, text: bytes, *, pretty: bool) -> bytes:
        """As :func:`~fhir_server.fhir_xml.to_xml`.  Raises Problem ``too_costly``."""
        return await self._converted(Task("to_xml", len(text), _SECONDS, pretty=pretty), text)

    async def patched(self, text: bytes, patch: bytes) -> bytes:
        """The resource ``text`` after an XML Patch.  Raises as :mod:`fhir_server.fhir_xml.patch`, and Problem ``too_costly``."""
        return await self._converted(Task("patch", len(text), _SECONDS, patch=patch, limit=self.max_bytes), text)

    async def _converted(self, task: Task, text: bytes) -> bytes:
        if len(text) + len(task.patch) <= LARGEST_CONVERTED:
            return converted(task, text)
        texts = [text]
        del text
        _, (result,) = await self._run(task, texts)
        return result

    async def close(self) -> None:
        """End the processes."""
        idle, self._idle = self._idle, []
        for process in idle:
            _end(process)
            await process.wait()

    async def _run(self, task: Task, texts: list[bytes]) -> tuple[Parsed, list[bytes]]:
        """Have a process do the task with a text, which is taken from ``texts``.  Raises the Problem of its result."""
        async with self._very_large if task.size > _VERY_LARGE_BYTES else nullcontext(), self._turns:
            spending = budget.current()
            if spending is not None:
                task.seconds = min(task.seconds, spending.remaining())
            process = self._idle.pop() if self._idle else await _start()
            try:
                parsed, entries = await _exchange(process, task, texts)
            except (OSError, EOFError, msgspec.DecodeError):
                _end(process)
                raise Problem("busy", "The body could not be parsed at the moment. Try again later.") from None
            except BaseException:
                _end(process)  # its answer would be taken for that of the next task
                raise
            self._idle.append(process)
        if spending is not None:
            spending.charge(parsed.seconds)
        if parsed.problem is not None:
            issues = tuple(Issue(one.code, one.text, one.expression, one.severity) for one in parsed.issues)  # type: ignore[arg-type]
            raise Problem(parsed.problem, parsed.message, issues)
        return parsed, entries


async def _start() -> Process:
    # the modules are found where this process found them
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = (sys.executable, "-m", "fhir_server.writing.parse_worker")
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, limit=2**20)


async def _exchange(process: Process, task: Task, texts: list[bytes]) -> tuple[Parsed, list[bytes]]:
    source, target = process.stdout, process.stdin
    assert source is not None and target is not None
    message = msgspec.msgpack.encode(task)
    target.write(len(message).to_bytes(LENGTH_BYTES) + message)
    target.write(texts.pop())
    await target.drain()
    length = int.from_bytes(await source.readexactly(LENGTH_BYTES))
    parsed = msgspec.msgpack.decode(await source.readexactly(length), type=Parsed)
    entries: list[bytes] = []
    for size in parsed.sizes:
        entries.append(await source.readexactly(size))
        await budget.give_way()
    return parsed, entries


def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
