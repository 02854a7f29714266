"""Verifies the audit log: finds lines that were changed, removed, added, repeated or cut off at the end.

It reads the log once, in pages.  Lines that an earlier version of the program wrote have chains of their own, one for each process,
without a key: :mod:`~fhir_server.audit.former_chains` checks them.

If lines were purged, the log must begin exactly after the last line that the newest record of a purge names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from fhir_server.audit.anchors import Anchor, read_anchors
from fhir_server.audit.chain import LOG_NAME, Chain, ChainKeys, Former, Head, Line, Purged, parse_line
from fhir_server.audit.former_chains import FormerChains
from fhir_server.audit.pending_lines import read_pending
from fhir_server.audit.reading import newest_purge
from fhir_server.clock import SECOND, instant_text, parsed_instant
from fhir_server.settings import Settings
from fhir_server.store import Store
from fhir_server.store.logs import HEAD

_PAGE: Final = 1000
_NOTHING: Final = Purged(0, 0, 0, -1, "", "", 0)
_STORED_WITHIN: Final = 3600 * SECOND  # how long after its instant a line may be stored
_MOST: Final = 20  # findings with a text; all are counted


@dataclass(slots=True)
class Verified:
    """The result.

    ``lines``     all lines; ``former``: those of an earlier version of the program; ``purged``: those that were purged before
    ``repeated``  lines that an earlier version stored twice when it stopped: a known fault, no sign of tampering
    ``findings``  what is wrong, the first of each run of lines; ``count``: how many findings there are in all
    ``notes``     what is not wrong but must be known, such as where the operator began a new chain
    ``head``      the end of the chain that was verified
    """

    lines: int = 0
    former: int = 0
    purged: int = 0
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
    while True:
        purge = await newest_purge(store)
        result = await _verify(store, keys, anchors, purge)
        if not result.count or await newest_purge(store) == purge:  # else lines were purged meanwhile
            return result


async def _verify(store: Store, keys: ChainKeys, anchors: Sequence[Anchor], purge: Line | None) -> Verified:
    head_text = await store.key_values.get(HEAD, LOG_NAME, 0)  # before the lines, which may grow
    verifier = _Verifier(keys, None if head_text is None else keys.read_head(head_text), anchors, purge)
    after = 0
    while lines := await store.read_log(LOG_NAME, after, _PAGE):
        verifier.add(lines)
        after = lines[-1][0]
    verifier.finish(head_text is not None, await _is_in_use(store))
    if foreign := len([line async for line in read_pending(store, keys) if line.entry is None]):
        verifier.result.find(f"{foreign} pending lines of writes were not written with this server's secret key.")
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
    purged = f"; {result.purged} before them were purged" if result.purged else ""
    return f"{result.lines} lines, chain unbroken{former}{purged}"


async def _is_in_use(store: Store) -> bool:
    """Whether anything has used the store that writes to the audit log: a server, or a command that adds an account."""
    kinds = ("signing-key", "user")
    return any([await store.key_values.list_all(kind, 0) for kind in kinds])


class _Verifier:
    def __init__(self, keys: ChainKeys, head: Head | None, anchors: Sequence[Anchor], purge: Line | None) -> None:
        self.result = Verified(head=head)
        self._purge = purge
        self._purged = purge.purged if purge and purge.purged else _NOTHING
        self._purge_seen: Line | None = None
        self._remaining = {one.mac: (one.lines, one.digest) for one in self._purged.formers}
        self._after_purge = _Digest()
        self._chain = Chain(keys)
        self._head = head
        self._former_chains = FormerChains()
        self._all = _Digest()
        self._last = Line(self._purged.mac, "", self._purged.seq, b"") if self._purged.mac else None
        self._head_seen = False
        self._unknown: list[int] = []  # first line with an unknown key, and how many there are
        self._anchors: dict[int, dict[str, str]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.seq, {})[anchor.mac] = anchor.time
        self._anchored = len(anchors)

    def add(self, lines: Iterable[tuple[int, bytes]]) -> None:
        """Verify further lines."""
        for number, text in lines:
            line = parse_line(text)
            if number <= self._purged.through:
                self.result.find(f"Line {number} was purged, and is there: it was added by something else than this program.")
            elif line is not None:
                self._chained(number, line)
            elif self._last is None:
                self.result.former += 1
                self._former(number, text)
            else:
                self.result.find(f"Line {number} is no line of the chain: it was changed, or added by something else than this program.")
            self.result.lines += 1
            self._all.add(text)
            if self._purged.through < self._purged.until < number:
                self._after_purge.add(text)

    def _former(self, number: int, text: bytes) -> None:
        if self._purge is not None:
            return  # a line of the keyed chain has their digest; the lines that they follow may be purged
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
        if line.purged is not None:
            self._purge_seen = line
        if self._head is not None and (line.seq, line.mac) == (self._head.seq, self._head.mac):
            self._head_seen = True
        macs = self._anchors.get(line.seq)
        if macs is not None:
            macs.pop(line.mac, None)

    def _begin(self, number: int, line: Line, former: Former) -> None:
        fits = self._chain.fits(line, "")
        if fits is None:
            self._other_key(number)
        elif not fits or line.seq != 0:
            self.result.find(f"Line {number} was changed.")
        elif number > self._purged.until and (said := self._said(line, former)) != (found := self._before(line)):
            self.result.find(f"The {said[0]} lines before line {number} were changed: they are {found[0]}, or differ.")
        elif former.reason:
            self.result.notes.append(f"A new chain begins at line {number}, with the digest of all lines before it: {former.reason}")
            self._unknown = []
        elif self._last is not None:
            self.result.find(f"The chain begins again at line {number}.")

    def _said(self, line: Line, former: Former) -> tuple[int, str]:
        """The number and digest of the lines before line 0: as it says, or as the record of a purge of some of them said later.

        Of a line 0 that an interrupted purge has yet to remove, nothing is said: lines before it are gone.
        """
        return self._remaining.get(line.mac, (former.lines, former.digest))

    def _before(self, line: Line) -> tuple[int, str]:
        """The number and digest of the lines before line 0; if a purge was interrupted, those that it would leave."""
        is_listed = line.mac in self._remaining and self._purged.through < self._purged.until
        return (self._after_purge if is_listed else self._all).value()

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
        if self._purge is not None:
            result.purged = self._purged.total
            if self._purge_seen != self._purge:
                result.find("The newest record of a purge is no part of the chain.")
        lost, older = self._lost_anchors()
        if older:
            result.notes.append(f"{older} anchors are of lines that were purged, and cannot be compared any more.")
        if lost:
            result.find(
                f"{len(lost)} anchors do not fit the log, the first at number {lost[0]} of the chain: the log was replaced or cut off."
            )
        elif self._anchored > older:
            result.notes.append(f"{self._anchored - older} anchors fit.")

    def _lost_anchors(self) -> tuple[list[int], int]:
        """The numbers of the anchors that fit no line, and how many of the others are of lines that were purged.

        These are the anchors from before the instant of the purge.  A line may be stored some time after the instant that it has, so
        an anchor of a purged line may be a little younger.
        """
        purged = self._purged
        lost, older = [], 0
        for seq, macs in self._anchors.items():
            for mac, time in macs.items():
                if time < purged.before or mac == purged.mac or (seq <= purged.seq and time < _later(purged.before)):
                    older += 1
                else:
                    lost.append(seq)
        return sorted(lost), older


class _Digest:
    """The number of lines, and the SHA-256 of all, each with a newline."""

    def __init__(self) -> None:
        self._lines = 0
        self._digest = sha256()

    def add(self, text: bytes) -> None:
        self._lines += 1
        self._digest.update(text + b"\n")

    def value(self) -> tuple[int, str]:
        return self._lines, self._digest.hexdigest()


def _later(instant: str) -> str:
    return instant_text(parsed_instant(instant) + _STORED_WITHIN) if instant else ""
