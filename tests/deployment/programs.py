"""Finds the programs that the tests of ``deploy/`` run."""

from __future__ import annotations

import os
import shutil

from tests.served import ROOT

_UNPACKED = ROOT / ".cache/deployment"
_PLACES = ("/usr/sbin", str(_UNPACKED / "usr/sbin"), str(_UNPACKED / "usr/bin"))


def program(name: str) -> str:
    """The path of a program that ``scripts/deployment-tools.sh`` finds or unpacks.  Raises RuntimeError if it is missing."""
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], *_PLACES)))
    if found is None:
        raise RuntimeError(f"{name} is missing; run sh scripts/deployment-tools.sh.")
    return found
