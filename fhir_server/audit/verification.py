"""Verifies the audit log: finds lines that were changed, removed, added, repeated or cut off at the end.

It reads the log once, in pages.  Lines that an earlier version of the program wrote have chains of their own, one for each process,
without a key: :mod:`~fhir_server.audit.former_chains` checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from fhir_server.audit.anchors import Anchor, read_anchors
from fhir_server.audit.chain import LOG_NAME, Chain, ChainKeys, Former, Head, Line, parse_line
from fhir_server.audit.former_chains import FormerChains
from fhir_server.settings import Settings
from fhir_server.store import Store
from fhir_server.store.logs import HEAD

_PAGE: Final = 1000
_MOST: Final = 20  # findings with a text; all are counted


@dataclass(slots=True)
class Verified:
    """The result.

    ``lines``     all lines; ``former``: those of an earlier version of the program
    ``repeated``  lines that an earlier version stored twice when it stopped: a known fault, no sign of tampering
    ``findings``  what is wrong, the first of each run of lines; ``count``: how many findings there are in all
    ``notes``     what is not wrong but must be known, such as where the operator began a new chain
    ``head``      the end of the chain that was verified
    """

    lines: int = 0
    former: int = 0
    repeated: int = 0
    findings: list[str] = field(default_factory=list)
    count: int = 0
    notes: list[str] = field(default_factory=list)
    head: Head | None = None

    def find(self, text: str) -> None:
        """Add a finding."""
        self.count += 1
        if len(self.findings) < _MOST:
            self.findings.append(text)


async def verify(store: Store, keys: ChainKeys, anchors: Sequence[Anchor] = ()) -> Verified:
    """Verify the audit log of a store.  Lines that are added meanwhile are verified too."""
    head_text = await store.key_values.get(HEAD, LOG_NAME, 0)  # before the lines, which may grow
    verifier = _Verifier(keys, None if head_text is None else keys.read_head(head_text), anchors)
    after = 0
    while lines := await store.read_log(LOG_NAME, after, _PAGE):
        verifier.add(lines)
        after = lines[-1][0]
    verifier.finish(head_text is not None, await _is_in_use(store))
    return verifier.result


async def verify_log_of(store: Store, settings: Settings, anchors: Path | None = None) -> Verified:
    """Verify the audit log with the keys of the settings, and the anchors in this file or in the settings' if it exists."""
    path = anchors or (Path(settings.audit_anchor_file) if settings.audit_anchor_file else None)
    read = read_anchors(path) if path is not None and path.exists() else []
    return await verify(store, ChainKeys.of(settings), read)


def summary(result: Verified) -> str:
    """One sentence about a verified log."""
    if result.count:
        return f"{result.lines} lines, {result.count} faults, the first: {result.findings[0]}"
    repeated = f"; {result.repeated} were stored twice by an earlier version" if result.repeated else ""
    former = f", {result.former} of an earlier version without a key{repeated}" if result.former else ""
    return f"{result.lines} lines, chain unbroken{former}"


async def _is_in_use(store: Store) -> bool:
    """Whether anything has used the store that writes to the audit log: a server, or a command that adds an account."""
    kinds = ("signing-key", "user")
    return any([await store.key_values.list_all(kind, 0) for kind in kinds])


class _Verifier:
    def __init__(self, keys: ChainKeys, head: Head | None, anchors: Sequence[Anchor]) -> None:
        self.result = Verified(head=head)
        self._chain = Chain(keys)
        self._head = head
        self._former_chains = FormerChains()
        self._digest = sha256()
        self._last: Line | None = None
        self._head_seen = False
        self._unknown: list[int] = []  # first line with an unknown key, and how many there are
        self._anchors: dict[int, set[str]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.seq, set()).add(anchor.mac)
        self._anchored = len(anchors)

    def add(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Verify further lines."""
        for number, text in lines:
            line = parse_line(text)
            if line is not None:
                self._chained(number, line)
            elif self._last is None:
                self.result.former += 1
                self._former(number, text)
            else:
                self.result.find(f"Line {number} is no line of the chain: it was changed, or added by something else than this program.")
            self.result.lines += 1
            self._digest.update(text + b"\n")

    def _former(self, number: int, text: bytes) -> None:
        match self._former_chains.add(text):
            case "broken":
                self.result.find(f"Line {number}, of an earlier version of the program, does not follow the line before it in its chain.")
            case "repeated":
                self.result.repeated += 1

    def _chained(self, number: int, line: Line) -> None:
        if line.former is not None:
            self._begin(number, line, line.former)
        else:
            self._follow(number, line)
        self._last = line
        if self._head is not None and (line.seq, line.mac) == (self._head.seq, self._head.mac):
            self._head_seen = True
        macs = self._anchors.get(line.seq)
        if macs is not None:
            macs.discard(line.mac)

    def _begin(self, number: int, line: Line, former: Former) -> None:
        fits = self._chain.fits(line, "")
        if fits is None:
            self._other_key(number)
        elif not fits or line.seq != 0:
            self.result.find(f"Line {number} was changed.")
        elif (former.lines, former.digest) != (self.result.lines, self._digest.hexdigest()):
            self.result.find(f"The {former.lines} lines before line {number} were changed: they are {self.result.lines}, or differ.")
        elif former.reason:
            self.result.notes.append(f"A new chain begins at line {number}, with the digest of all lines before it: {former.reason}")
            self._unknown = []
        elif self._last is not None:
            self.result.find(f"The chain begins again at line {number}.")

    def _other_key(self, number: int) -> None:
        """Count a line under a key that is not known; a later chain with a known key may vouch for it."""
        if not self._unknown:
            self._unknown = [number, 0]
        self._unknown[1] += 1

    def _follow(self, number: int, line: Line) -> None:
        before = self._last
        expected = before.seq + 1 if before else 0
        if line.seq > expected:
            self.result.find(f"Lines are missing before line {number}: numbers {expected} to {line.seq - 1} of the chain.")
        elif line.seq < expected:
            self.result.find(f"Line {number} repeats number {line.seq} of the chain.")
        elif (fits := self._chain.fits(line, before.mac if before else "")) is None:
            self._other_key(number)
        elif not fits:
            self.result.find(f"Line {number}, or the line before it, was changed.")

    def finish(self, has_head: bool, in_use: bool) -> None:
        """Verify the end."""
        result = self.result
        if self._unknown:
            result.find(f"{self._unknown[1]} lines, from line {self._unknown[0]}, were written with another secret key.")
        if has_head and self._head is None:
            result.find("The head of the chain was changed, or written with another secret key.")
        elif self._head is None and self._last is not None:
            result.find("The head of the chain is missing: lines may be missing at the end.")
        elif self._head is not None and not self._head_seen:
            last = f"the last line has number {self._last.seq}" if self._last else "no line is left"
            result.find(f"Lines are missing at the end: the chain ended with number {self._head.seq}, and {last}.")
        elif self._head is None and not result.lines and in_use:
            result.find("The audit log is empty, and the store is in use: the log was removed.")
        lost = sorted(seq for seq, macs in self._anchors.items() if macs)
        if lost:
            result.find(
                f"{len(lost)} anchors do not fit the log, the first at number {lost[0]} of the chain: the log was replaced or cut off."
            )
        elif self._anchored:
            result.notes.append(f"{self._anchored} anchors fit.")
