"""Location of the data folders in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server import package_data
from tests.installation.building import ROOT


def test_checkout_uses_its_top_level_folders() -> None:
    assert package_data.data_folder("ig") == ROOT / "ig"
    assert package_data.data_folder("seed_bundles") == ROOT / "seed_bundles"


def test_packaged_folder_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_data, "files", lambda name: tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder 'ig'"):
        package_data.data_folder("ig")
    for folder in (tmp_path / "ig", tmp_path / "fhir_server/ig"):
        folder.mkdir(parents=True)
        assert package_data.data_folder("ig") == folder
