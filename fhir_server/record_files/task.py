"""What a process is to make: the message that comes before the Bundle."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Kind = Literal["html", "pdf"]
LENGTH_BYTES: Final = 8
TOO_LARGE: Final = 3
"""The exit status of a process whose file would be too large."""


class Task(msgspec.Struct):
    """A file to make from a Bundle.

    ``kind``          the format
    ``name``          whose record it is
    ``relation``      what the person who asked is to that person
    ``organization``  whose server it is
    ``made``          when, in words
    ``period``        which part of the record was asked for, in words
    ``withheld``      what the person's view leaves out, in the policy's words; "" if nothing
    ``is_part``       whether the record has more than this Bundle
    ``seconds``       CPU time that it may take
    ``most``          bytes that the file may have
    """

    kind: Kind
    name: str
    relation: str
    organization: str
    made: str
    period: str
    withheld: str = ""
    is_part: bool = False
    seconds: int = 20
    most: int = 64 * 1024 * 1024
