"""How a tour in Python tries its calls: each in turn, with a line about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempt(name: str, call: Callable[[], Any]) -> Any:
    """Return what the call gives; print ``ok NAME``, or ``failed NAME: why`` and return None."""
    try:
        found = call()
    except Exception as error:  # any error of a client, to be told, not to end the tour
        print(f"failed {name}: {type(error).__name__} {' '.join(str(error).split())[:400]}")
        return None
    print(f"ok {name}")
    return found


def require(holds: object) -> None:
    """Raise an error unless this holds."""
    if not holds:
        raise AssertionError("not what was asked for")
