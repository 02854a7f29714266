"""A process that parses and validates large bodies, so that the server's process goes on answering.

Run with ``python -m fhir_server.writing.parse_worker``.  It reads messages from its standard input and answers each on its
standard output, until the input ends, as it does when the server ends in any way.  A message is MessagePack with its length
(8 bytes, big-endian) before it.  Large texts follow it as they are, so that there is no second copy of them.
"""

from __future__ import annotations

import resource
import signal
import sys
from typing import Any, Literal, NoReturn

import msgspec

from fhir_server import jsontext
from fhir_server.allocator import configure_allocator, give_back_memory
from fhir_server.errors import Problem, ProblemKind
from fhir_server.fhir_xml import patch, to_json, to_xml
from fhir_server.resources import bundle_rules
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import server_base
from fhir_server.writing.draft import Draft, parse_draft
from fhir_server.writing.entry_resources import linked_resource

LENGTH_BYTES = 8
_LARGE = 1024 * 1024  # bytes of a text, after which free memory goes back to the system


class Links(msgspec.Struct):
    """The links of a Bundle: the members of :class:`~fhir_server.resources.bundle_links.BundleLinks`."""

    base: str
    targets: dict[str, str]
    versions: dict[str, str]
    refused: set[str]
    ambiguous: set[str]

    @staticmethod
    def of(links: BundleLinks) -> Links:
        """What another process needs of these links."""
        return Links(links.server.base, links.targets, links.versions, links.refused, links.ambiguous)

    def known(self) -> BundleLinks:
        """The links."""
        return BundleLinks(server_base(self.base), self.targets, self.versions, self.refused, self.ambiguous)


class Task(msgspec.Struct):
    """What to do with a text, which follows the message.

    ``size``     of the text
    ``draft``    parse and validate a resource; the other fields are the arguments of :func:`~fhir_server.writing.draft.parse_draft`
    ``entries``  parse a Bundle, and separate its entries from the rest
    ``links``    resolve the links of an entry with the fullUrl ``full_url``
    ``from_xml``, ``to_xml``  convert a resource; ``pretty``: with indents
    ``patch``    do the XML Patch ``patch``, which may add ``limit`` bytes, to a resource
    ``seconds``  the CPU time that this may take
    """

    job: Literal["draft", "entries", "links", "from_xml", "to_xml", "patch"]
    size: int
    seconds: float
    type: str | None = None
    base: str = ""
    conditional: bool = False
    full_url: str = ""
    links: Links | None = None
    pretty: bool = False
    patch: bytes = b""
    limit: int = 0


class ParsedIssue(msgspec.Struct):
    """An issue of a Problem."""

    code: str
    text: str
    expression: tuple[str, ...]
    severity: str


class Parsed(msgspec.Struct):
    """The result of a task: a Problem, or the texts of a valid resource's members, or those of a Bundle's entries.

    ``sizes``  of the texts that follow the message: of the entries, or of the resource as it has become
    """

    seconds: float = 0.0
    problem: ProblemKind | None = None
    message: str = ""
    issues: list[ParsedIssue] = []
    type: str = ""
    parts: dict[str, bytes] = {}
    references: list[str] = []
    sizes: list[int] = []


class _OutOfTimeError(Exception):
    """The task has used up its CPU time."""


def run(task: Task, text: bytes) -> tuple[Parsed, list[bytes]]:
    """Do the task, in its CPU time; return the result and the texts of entries.  A Problem is part of the result."""
    began = _cpu_seconds()
    signal.signal(signal.SIGPROF, _out_of_time)
    signal.setitimer(signal.ITIMER_PROF, task.seconds)
    entries: list[bytes] = []
    try:
        if task.job == "draft":
            parsed = _of_draft(parse_draft(text, task.type, base=task.base, conditional=task.conditional))
        elif task.job == "entries":
            parts, entries = _entries(text)
            parsed = Parsed(parts=parts)
        elif task.job != "links":
            entries = [converted(task, text)]
            parsed = Parsed()
        else:
            assert task.links is not None
            entries = [linked_resource(text, task.full_url, task.links.known())]
            parsed = Parsed()
        parsed.sizes = [len(entry) for entry in entries]
    except Problem as problem:
        issues = [ParsedIssue(issue.code, issue.text, issue.expression, issue.severity) for issue in problem.issues]
        parsed = Parsed(problem=problem.kind, message=str(problem), issues=issues)
    except _OutOfTimeError:
        parsed = Parsed(problem="too_costly", message="The body takes too long to validate. Send less at once.")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    parsed.seconds = _cpu_seconds() - began
    return parsed, entries


def converted(task: Task, text: bytes) -> bytes:
    """The text that a task of conversion makes.  Raises Problem ``invalid`` for XML that is no resource, and what a patch raises."""
    if task.job == "patch":
        return patch.apply(patch.parse(task.patch), text, task.limit)
    return to_xml(text, pretty=task.pretty) if task.job == "to_xml" else to_json(text)


def _of_draft(draft: Draft) -> Parsed:
    return Parsed(type=draft.type, parts=dict(draft.parts), references=sorted(draft.references))


def _entries(text: bytes) -> tuple[dict[str, bytes], list[bytes]]:
    """The members of a Bundle apart from its entries, and the entries.  A text that is no such Bundle has its members only."""
    in_parts = _entries_in_parts(text)
    if in_parts is not None:
        value, parts, entries = in_parts
        bundle_rules.require_valid_if_processed(value)
        return parts, entries
    value = jsontext.parse(text)
    if not isinstance(value, dict):
        return {}, []
    bundle_rules.require_valid_if_processed(value)
    is_list = isinstance(value.get("entry"), list)
    del value
    parts = jsontext.members(text)
    entries = jsontext.items(parts.pop("entry")) if is_list else []
    return parts, entries


def _entries_in_parts(text: bytes) -> tuple[dict[str, Any], dict[str, bytes], list[bytes]] | None:
    """The Bundle without the content of its resources, the texts of its members apart from the entries, and those of the entries.

    The value of one entry is made at a time, because values take many times the memory of their texts.  None if the text should be
    parsed at once: it is refused, or spells the names of members in an unusual way.
    """
    try:
        text = jsontext.compact(text)
        parts = jsontext.members(text)
        if "entry" not in parts or jsontext.join_members(parts) != text:  # a name is repeated
            return None
        del text
        entries = jsontext.items(parts.pop("entry"))
        value = {name: jsontext.parse(part, inside=1) for name, part in parts.items()}
        value["entry"] = [bundle_rules.without_content(jsontext.parse(entry, inside=2)) for entry in entries]
    except (ValueError, RecursionError, Problem):
        return None
    return value, parts, entries


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _out_of_time(*_: Any) -> NoReturn:
    raise _OutOfTimeError


def main() -> None:
    """Answer messages until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    configure_allocator()
    decoder, encoder = msgspec.msgpack.Decoder(Task), msgspec.msgpack.Encoder()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        task = decoder.decode(source.read(int.from_bytes(head)))
        parsed, entries = run(task, source.read(task.size))
        message = encoder.encode(parsed)
        target.write(len(message).to_bytes(LENGTH_BYTES))
        target.write(message)
        del parsed, message
        for number, entry in enumerate(entries):
            target.write(entry)
            entries[number] = b""
        target.flush()
        if task.size > _LARGE:
            give_back_memory()


if __name__ == "__main__":
    main()
