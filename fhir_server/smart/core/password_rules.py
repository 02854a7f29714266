"""Rules for new passwords: minimum length, and hard to guess (NIST SP 800-63B, "memorized secrets"; OWASP ASVS 5.0, 6.2).

There are no rules about kinds of characters, and a password is never truncated or changed.  zxcvbn estimates the number of
guesses; it knows 30,000 breached passwords, words, names, dates and keyboard rows, and common variations of them.
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
# Easy guesses at a health care organization.  docs/security.md lists them, with the words taken from the account.
COMMON_WORDS: Final = (
    *("health", "healthcare", "hospital", "clinic", "clinical", "clinician", "doctor", "nurse", "patient", "medical", "medicine"),
    *("record", "records", "portal", "mychart", "chart", "billing", "privacy", "officer", "fhir", "smart", "server"),
)
_ESTIMATED: Final = 32  # characters; longer passwords are only harder to guess, and the estimate would take seconds
_zxcvbn_lock = Lock()  # zxcvbn stores its user_inputs in a global
_LINE: Final = re.compile(rb"[0-9A-F]{40}(:[0-9]+)?\r?\n")


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """This server's own rules: ``words`` as in :func:`check`, and a file of breached passwords (None: no file)."""

    words: tuple[str, ...] = ()
    breached: Path | None = None

    @staticmethod
    def of(words: tuple[str, ...], breached: str) -> PasswordRules:
        """Rules with the file at the path ``breached`` ("": no file).

        Raises ValueError, with a message for the operator, if the file cannot be read or has another format.
        """
        if not breached:
            return PasswordRules(words)
        try:
            with Path(breached).open("rb") as file:
                is_hash = _LINE.fullmatch(file.readline(100))
        except OSError as error:
            raise ValueError(f"FHIR_SERVER_BREACHED_PASSWORDS_FILE cannot be read: {error}") from None
        if not is_hash:
            raise ValueError(
                "FHIR_SERVER_BREACHED_PASSWORDS_FILE must contain sorted SHA-1 hashes in upper case, one per line, as in Pwned Passwords."
            )
        return PasswordRules(words, Path(breached))

    def check(self, password: str, names: Iterable[str] = ()) -> None:
        """Check a new password against all rules.  Raises ValueError, with a message for the person, if it breaks one."""
        check(password, (*self.words, *names))
        if self.breached is not None and is_breached(self.breached, password):
            raise ValueError("This password appeared in a data breach at another site. Choose a different one.")


DEFAULT_RULES: Final = PasswordRules()  # without an organization's words and without a file


def is_breached(file: Path, password: str) -> bool:
    """Whether a file of sorted SHA-1 hashes, one per line, contains this password.  Binary search, for files of any size."""
    wanted = sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
    with file.open("rb") as hashes, mmap(hashes.fileno(), 0, access=ACCESS_READ) as text:
        low, high = 0, len(text)
        while low < high:
            start = text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            end = text.find(b"\n", start)
            candidate = text[start : start + 40]
            if candidate == wanted:
                return True
            low, high = (low, start) if candidate > wanted else (end + 1 if end >= 0 else high, high)
    return False


def check(password: str, words: Iterable[str] = ()) -> None:
    """Check length and number of guesses.  ``words`` are names of the person and the organization, which count as easy guesses.

    Raises ValueError, with a message for the person, if the password is too short or too easy.  Takes some milliseconds.
    """
    if len(password) < MIN_LENGTH:
        raise ValueError(f"A password needs at least {MIN_LENGTH} characters.")
    from zxcvbn import zxcvbn  # imported here: it loads a megabyte of words, and passwords change rarely

    with _zxcvbn_lock:
        guesses = zxcvbn(password[:_ESTIMATED], user_inputs=[*COMMON_WORDS, *_variants(words)])["guesses"]
    if guesses < MIN_GUESSES:
        raise ValueError("This password is too easy to guess. Choose a longer one, for example a few unrelated words.")


def _variants(words: Iterable[str]) -> set[str]:
    """Each text as written, its words, and its words joined without spaces."""
    texts = [text.casefold() for text in words]
    split = [re.findall(r"\w+", text) for text in texts]
    return {part for text, parts in zip(texts, split, strict=True) for part in (text, *parts, "".join(parts)) if part}
