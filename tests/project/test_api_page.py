"""``docs/api.md``: its tables are those of the server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fhir_server.errors import KINDS
from fhir_server.interactions import registry
from fhir_server.interactions.registry import REGISTRY, Served

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_api_page.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_api_page", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_api_page = script()


def test_tables_are_current() -> None:
    text = build_api_page.PAGE.read_text(encoding="utf-8")
    assert build_api_page.page(text) == text, "run scripts/build_api_page.py"


def test_tables_change_with_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_api_page, "REGISTRY", (*REGISTRY, Served("operation", "GET", ("{type}", "$new"))))
    assert "| `$new` | GET `/{type}/$new` |" in build_api_page.page(build_api_page.PAGE.read_text(encoding="utf-8"))


def test_every_path_and_every_kind_of_error_is_in_a_table() -> None:
    text = build_api_page.PAGE.read_text(encoding="utf-8")
    assert all(f"`{served.template}`" in text for served in registry.REGISTRY)
    assert build_api_page._MEANINGS.keys() == KINDS.keys()
