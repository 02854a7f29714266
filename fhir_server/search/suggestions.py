"""What an error about an unknown name says: the name that was probably meant, and the valid ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, valid: Iterable[str]) -> str:
    """The sentences about the valid names that follow the one about an unknown name, with a blank before them."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name[:80], names, 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"{meant} Valid names: {', '.join(names)}."
