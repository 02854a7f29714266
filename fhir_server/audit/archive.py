"""An archive of purged lines of the audit log: a file that is verified without the store, with the secret key alone.

Each line of the file is the number of a line, a tab and the line, as ``fhir-server journal`` prints them.  The last line of the file is
``end``, a tab and JSON (:class:`_End`): after which line the file begins, how many lines it has, their digest, and a MAC over all that.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from fhir_server.audit.anchors import Anchor
from fhir_server.audit.chain import Chain, ChainKeys, Line, parse_line
from fhir_server.durable import sync

_END: Final = b"end\t"
_CHANGED: Final = "The archive was changed, or was written with another FHIR_SERVER_SECRET_KEY."


class _End(msgspec.Struct, frozen=True):
    """``seq`` and ``mac``: of the line before the first one ("": it was in no chain); ``digest``: of all lines, each with a newline."""

    lines: int
    digest: str
    seq: int
    mac: str
    key: str
    seal: str = ""


class ArchiveWriter:
    """Writes a new file, for its owner only.  Raises OSError if it exists."""

    def __init__(self, path: Path, keys: ChainKeys) -> None:
        self._keys = keys
        self._path = path
        self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        self._lines = 0
        self._digest = sha256()

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, number: int, text: bytes) -> None:
        """Add a line of the log."""
        self._file.write(b"%d\t%s\n" % (number, text))
        self._lines += 1
        self._digest.update(text + b"\n")

    def finish(self, after: tuple[int, str]) -> str:
        """Write the end, make the file durable, and return the digest.

        ``after``: number and MAC of the line before the first one; (-1, "") if it was in no chain.
        """
        end = _End(self._lines, self._digest.hexdigest(), *after, self._keys.name)
        sealed = msgspec.structs.replace(end, seal=str(self._keys.mac(end.key, _sealed(end))))
        self._file.write(_END + msgspec.json.encode(sealed) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        sync(self._path.parent)
        return end.digest


class VerifiedArchive(msgspec.Struct):
    """``lines``: how many there are; ``findings``: what is wrong; ``anchors``: how many anchors are of these lines and fit."""

    lines: int
    digest: str
    findings: list[str]
    anchors: int = 0


def verify_archive(path: Path, keys: ChainKeys, anchors: list[Anchor] | None = None) -> VerifiedArchive:
    """Verify an archive: its end vouches for all lines, and each line of the chain follows the one before it.

    Raises OSError if it cannot be read.
    """
    result = VerifiedArchive(0, "", [])
    macs = {(anchor.seq, anchor.mac) for anchor in anchors or ()}
    end = _read_end(path, keys)
    if end is None:
        result.findings.append(_CHANGED)
        return result
    digest, chain = sha256(), Chain(keys)
    before = Line(end.mac, "", end.seq, b"") if end.mac else None
    with path.open("rb") as file:
        for row in file:
            number, _, text = row.removesuffix(b"\n").partition(b"\t")
            if number == b"end":
                continue
            result.lines += 1
            digest.update(text + b"\n")
            line = parse_line(text)
            if line is not None:
                if _is_broken(chain, line, before):
                    result.findings.append(f"Line {number.decode(errors='replace')}, or the line before it, was changed.")
                result.anchors += (line.seq, line.mac) in macs
                before = line
    result.digest = digest.hexdigest()
    if (result.lines, result.digest) != (end.lines, end.digest):
        result.findings.append(f"The archive had {end.lines} lines; it has {result.lines}, or others.")
    return result


def _is_broken(chain: Chain, line: Line, before: Line | None) -> bool:
    """Whether a line certainly does not follow the one before it: a line under a lost key is vouched for by the end alone."""
    expected = 0 if line.former is not None or before is None else before.seq + 1
    fits = chain.fits(line, before.mac if before is not None and expected else "")
    return line.seq != expected or fits is False


def _read_end(path: Path, keys: ChainKeys) -> _End | None:
    """The end of the file, if it was made with one of these keys and is its last line."""
    with path.open("rb") as file:
        last = b""
        for last in file:
            if last.startswith(_END):
                break
        if not last.startswith(_END) or file.read(1):
            return None
    try:
        end = msgspec.json.decode(last[len(_END) :], type=_End)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    seal = keys.mac(end.key, _sealed(end))
    return end if seal is not None and hmac.compare_digest(seal, end.seal) else None


def _sealed(end: _End) -> bytes:
    return b"archive of the audit log\n%d\n%s\n%d\n%s" % (end.lines, end.digest.encode(), end.seq, end.mac.encode())
