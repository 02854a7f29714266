"""What may be a password: long enough, and not easy to guess (NIST SP 800-63B, "memorized secrets"; OWASP ASVS 5.0, 6.2).

No rules about kinds of characters, and nothing is cut off or changed.  How many guesses a password would take is zxcvbn's
estimate, which knows 30,000 passwords from breaches, words, names, dates and rows of keys, and what people do to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import Final

MIN_LENGTH: Final = 10
MIN_GUESSES: Final = 10**8
# What anybody would try first at a place like this; docs/security.md lists them, with the words taken from the account.
COMMON_WORDS: Final = (
    *("health", "healthcare", "hospital", "clinic", "clinical", "clinician", "doctor", "nurse", "patient", "medical", "medicine"),
    *("record", "records", "portal", "mychart", "chart", "billing", "privacy", "officer", "fhir", "smart", "server"),
)
_ESTIMATED: Final = 32  # characters; more can only be harder to guess, and would take seconds to estimate
_one_at_a_time = Lock()  # zxcvbn keeps the words it is given in a global
_LINE: Final = re.compile(rb"[0-9A-F]{40}(:[0-9]+)?\r?\n")


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What this server asks of a password beside length: ``words`` as in :func:`check`, and a file of breached passwords."""

    words: tuple[str, ...] = ()
    breached: Path | None = None

    @staticmethod
    def of(words: tuple[str, ...], breached: str) -> PasswordRules:
        """With the file at the path ``breached`` ("": none).  Raises ValueError, worded for the operator, if it is not such a file."""
        if not breached:
            return PasswordRules(words)
        try:
            with Path(breached).open("rb") as file:
                sound = _LINE.fullmatch(file.readline(100))
        except OSError as error:
            raise ValueError(f"FHIR_SERVER_BREACHED_PASSWORDS_FILE cannot be read: {error}") from None
        if not sound:
            raise ValueError(
                "FHIR_SERVER_BREACHED_PASSWORDS_FILE must be lines of SHA-1 hashes in capitals, in order, as Pwned Passwords has them."
            )
        return PasswordRules(words, Path(breached))

    def check(self, password: str, names: Iterable[str] = ()) -> None:
        """Refuse what may not be this person's password.  Raises ValueError, worded for whoever chose it."""
        check(password, (*self.words, *names))
        if self.breached is not None and is_breached(self.breached, password):
            raise ValueError("This password is known from a breach at some other place. Choose another one.")


DEFAULT_RULES: Final = PasswordRules()  # those of no place in particular


def is_breached(file: Path, password: str) -> bool:
    """Whether a file of hashes in order, one a line, has this password: looked for by halves, whatever its size."""
    wanted = sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as text:
        low, high = 0, len(text)
        while low < high:
            start = text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            end = text.find(b"\n", start)
            found = text[start : start + 40]
            if found == wanted:
                return True
            low, high = (low, start) if found > wanted else (end + 1 if end >= 0 else high, high)
    return False


def check(password: str, words: Iterable[str] = ()) -> None:
    """Refuse what may not be a password.  ``words``: names that whoever knows the person or the place would try.

    Raises ValueError, worded for whoever chose it.  Takes some milliseconds.
    """
    if len(password) < MIN_LENGTH:
        raise ValueError(f"A password needs at least {MIN_LENGTH} characters.")
    from zxcvbn import zxcvbn  # a megabyte of words, for the rare moment in which a password is chosen

    with _one_at_a_time:
        guesses = zxcvbn(password[:_ESTIMATED], user_inputs=[*COMMON_WORDS, *_letters_of(words)])["guesses"]
    if guesses < MIN_GUESSES:
        raise ValueError("This password is too easy to guess. Choose a longer one; a few words that nobody would expect together do well.")


def _letters_of(words: Iterable[str]) -> set[str]:
    """Each of these texts as it is and run together, and the words in it."""
    texts = [text.casefold() for text in words]
    found = [re.findall(r"\w+", text) for text in texts]
    return {part for text, parts in zip(texts, found, strict=True) for part in (text, *parts, "".join(parts)) if part}
