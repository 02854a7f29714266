"""Finds the data files of the package: code lists, profiles and demo records.

In a wheel, ``ig`` and ``seed_bundles`` are folders of the package.  In a checkout, they are at its top level.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal


def data_folder(name: Literal["ig", "seed_bundles"]) -> Path:
    """The folder ``name`` of the package, or of the top level of the checkout.

    Raises FileNotFoundError, with a message for the operator, if neither exists.
    """
    package = Path(str(files("fhir_server")))
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"This installation of fhir-server has no folder {name!r}: install the package again.")
