"""The chain of the audit log: each line has a MAC over itself and the MAC before it; the head has the last number and MAC.

A line is ``{"mac":...,"key":...,"seq":...,"event":...}``.  The MAC is HMAC-SHA-256 with a key derived from the server's secret
key, over the MAC of the line before, a newline, and the text from ``"seq"`` to the end.  Without the secret key nobody can
change, remove or add a line and make it fit again.  The head shows that lines are missing at the end.  Who has saved an earlier
head and can write to the store could put both back: :mod:`~fhir_server.audit.anchors` keeps heads outside the store.

Line 0 begins a chain.  It has the number and the digest of all lines before it: those of an earlier version of the program, those
under a secret key that was replaced, or those of a chain that the operator ended because its key or its head was lost.

A line may say that the first lines of the log were purged (:class:`Purged`): it is stored in the transaction that removes them, so
the log always begins after the line that the newest such line names, and each removal that is not recorded is found.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from fhir_server.errors import Problem
from fhir_server.settings import Settings
from fhir_server.smart.core.encryption import derive_key
from fhir_server.store import LogEntry
from fhir_server.store.logs import AUDIT_LOG

LOG_NAME: Final = AUDIT_LOG
BEGINS: Final = b'{"mac":"'
WRONG_KEY: Final = (
    "The audit log was written with another FHIR_SERVER_SECRET_KEY, or its head was changed. Set the right key."
    " If it is lost, run fhir-server audit restart."
)
UNWRITTEN: Final = "The audit log cannot be written, so this request is not answered. Try again later."
NO_HEAD: Final = (
    "The head of the audit log is missing. Run fhir-server audit verify, and fhir-server audit restart if it cannot be restored."
)


class Head(msgspec.Struct, frozen=True):
    """The end of the chain: the number and MAC of its last line, and a MAC over both (``seal``) with the key named ``key``."""

    seq: int
    mac: str
    key: str
    seal: str


class Former(msgspec.Struct, frozen=True, omit_defaults=True):
    """The lines before a chain: their number, the SHA-256 of all, each with a newline; and why the operator began a new chain."""

    lines: int
    digest: str
    reason: str = ""


class Remaining(msgspec.Struct, frozen=True):
    """What remains before a later line 0, whose MAC is ``mac``: the number of lines and their digest, as in :class:`Former`."""

    mac: str
    lines: int
    digest: str


class Purged(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a line says about a step of a purge.

    ``lines``    how many lines the step removed; ``total``: all that were ever purged
    ``through``  the number of the last of them in the log; ``seq`` and ``mac``: its number and MAC in its chain ("": it was in none)
    ``before``   the purge removes lines that were recorded before this instant; ``until``: the number of the last of these
    ``formers``  the lines after ``until`` that remain before each later line 0: they replace what that line says of all lines before
    """

    lines: int
    total: int
    through: int
    seq: int
    mac: str
    before: str
    until: int
    formers: tuple[Remaining, ...] = ()


class Beginning(NamedTuple):
    """What line 0 says about the lines before it, if ``head`` is still the head of the log."""

    head: bytes | None
    former: Former


class NoBeginningError(Problem):
    """A chain must begin after a head for which no beginning was prepared: the lines before it are to be read again."""

    def __init__(self) -> None:
        super().__init__("busy", UNWRITTEN)


class Line(NamedTuple):
    """The parts of a line.  ``text`` is what its MAC covers, together with the MAC before.

    ``former``: only in line 0.  ``purged``: only in a line about a purge.
    """

    mac: str
    key: str
    seq: int
    text: bytes
    former: Former | None = None
    purged: Purged | None = None


class _Members(msgspec.Struct, frozen=True):
    mac: str
    key: str
    seq: int
    former: Former | None = None
    purged: Purged | None = None


_members = msgspec.json.Decoder(_Members)


class ChainKeys:
    """The key of new lines, and the keys of earlier ones, each derived from a secret key of the server.

    ``secret`` is empty in demo and test mode only.  ``former``: secret keys that were replaced.
    """

    def __init__(self, secret: str, former: Sequence[str] = ()) -> None:
        keys = [derive_key(text.encode(), "audit log") for text in (secret, *former)]
        self._keys = {sha256(b"name of the audit key" + key).hexdigest()[:8]: key for key in reversed(keys)}
        self.name = next(reversed(self._keys))

    @classmethod
    def of(cls, settings: Settings) -> ChainKeys:
        """The keys of the settings; the former secret key is one of the earlier ones."""
        return cls(settings.secret_key, [settings.former_secret_key] if settings.former_secret_key else ())

    def mac(self, name: str, text: bytes) -> str | None:
        """The MAC of ``text`` with the key of this name, as hexadecimal text; None if there is no such key."""
        key = self._keys.get(name)
        return hmac.digest(key, text, "sha256").hex() if key is not None else None

    def head(self, seq: int, mac: str) -> bytes:
        """The head after line ``seq``, as the store holds it."""
        seal = self.mac(self.name, _sealed(seq, mac))
        return msgspec.json.encode(Head(seq, mac, self.name, str(seal)))

    def read_head(self, text: bytes) -> Head | None:
        """The head in ``text``; None unless it was made with one of these keys."""
        try:
            head = msgspec.json.decode(text, type=Head)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        seal = self.mac(head.key, _sealed(head.seq, head.mac))
        return head if seal is not None and hmac.compare_digest(seal, head.seal) else None


class Chain:
    """Links new entries to the chain, in the transaction that stores them.

    ``beginning``: with what a chain begins after which head, if one must begin.
    """

    def __init__(self, keys: ChainKeys) -> None:
        self.keys = keys
        self.beginning: Beginning | None = None
        self._last: tuple[bytes, Head] | None = None  # the head that this process made last

    def link(self, head: bytes | None, entries: Sequence[LogEntry]) -> tuple[list[bytes], bytes]:
        """See :data:`fhir_server.store.logs.LinkEntries`.  Each entry's text is a JSON object.

        Raises NoBeginningError if a chain must begin here and it is not known with what, Problem ``busy`` if the head has no known key.
        """
        seq, mac, former = 0, "", b""
        if self.beginning is not None and self.beginning.head == head:
            former = _former(self.beginning.former)
        elif head is None:
            raise NoBeginningError
        elif (known := self._known(head)) is None:
            raise Problem("busy", UNWRITTEN) from ValueError(WRONG_KEY)
        elif known.key != self.keys.name:
            raise NoBeginningError
        else:
            seq, mac = known.seq + 1, known.mac
        lines = []
        for number, entry in enumerate(entries, seq):
            text = b'"seq":%d,%s%s' % (number, former if number == 0 else b"", entry.text[1:])
            mac = str(self.keys.mac(self.keys.name, _covered(mac, text)))
            lines.append(b'{"mac":"%s","key":"%s",%s' % (mac.encode(), self.keys.name.encode(), text))
        made = self.keys.head(seq + len(lines) - 1, mac)
        self._last = made, Head(seq + len(lines) - 1, mac, self.keys.name, "")
        return lines, made

    def _known(self, head: bytes) -> Head | None:
        last = self._last
        return last[1] if last is not None and last[0] == head else self.keys.read_head(head)

    def fits(self, line: Line, before: str) -> bool | None:
        """Whether a line follows the line with the MAC ``before``; None if its key is not known."""
        mac = self.keys.mac(line.key, _covered(before, line.text))
        return None if mac is None else hmac.compare_digest(mac, line.mac)


def parse_line(text: bytes) -> Line | None:
    """The parts of a line of the chain; None for any other text."""
    start, key_start = len(BEGINS), len(BEGINS) + 64
    covered = key_start + len(b'","key":"') + 8 + len(b'",')
    if not text.startswith(BEGINS) or text[key_start : key_start + 9] != b'","key":"' or text[covered - 2 : covered] != b'",':
        return None
    try:
        members = _members.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if members.mac.encode() != text[start:key_start]:
        return None
    return Line(members.mac, members.key, members.seq, text[covered:], members.former, members.purged)


def entry_text(line: bytes) -> bytes:
    """The text of the entry from which a line was made, without its first character; any other text is returned as it is."""
    parsed = parse_line(line)
    if parsed is None:
        return line
    text = parsed.text.partition(b",")[2]
    return text[len(_former(parsed.former)) :] if parsed.former is not None else text


def _former(former: Former) -> bytes:
    return b'"former":%s,' % msgspec.json.encode(former)


def _covered(before: str, text: bytes) -> bytes:
    return b"%s\n%s" % (before.encode(), text)


def _sealed(seq: int, mac: str) -> bytes:
    return b"head of the audit log\n%d\n%s" % (seq, mac.encode())
