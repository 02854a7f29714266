"""An operator at the command line, for tests of the commands on a whole store."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fhir_server.cli import main
from fhir_server.smart.core import signing_keys
from tests.mongo.shared_mongod import fresh_url
from tests.served import KEY, NOON, ROOT, Served
from tests.store_copies import copy_of

STORES = ("sqlite", "mongodb")
_generate = functools.cache(signing_keys._generate)  # the keys themselves are not tested here, and take a second each
_teen_records: dict[tuple[str, str], Callable[[str], None]] = {}


class Operator:
    """Runs commands with the settings of one store, which can be changed by name."""

    def __init__(self, url: str, **settings: str) -> None:
        self.url = url
        self.settings = {"MODE": "test", "SECRET_KEY": KEY, "CLOCK": NOON, **settings}

    def run(self, *command: str, **changed: str) -> Result:
        settings = {"STORE": self.url, **self.settings, **changed}
        shown = CliRunner().invoke(main, command, env={f"FHIR_SERVER_{name}": value for name, value in settings.items()})
        assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
        return shown

    def must(self, *command: str, **changed: str) -> str:
        """What a command says that must succeed."""
        shown = self.run(*command, **changed)
        assert shown.exit_code == 0, shown.output
        return shown.output

    def sentences(self, **changed: str) -> dict[str, str]:
        """What doctor says, by subject."""
        return {line.split()[0]: line.partition("  ")[2].strip() for line in self.run("doctor", **changed).output.splitlines()}


def new_operator(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "fhir") -> Operator:
    """The operator of a store of this kind that does not exist yet."""
    monkeypatch.setattr(signing_keys, "_generate", _generate)
    return Operator(f"sqlite:///{folder / name}.sqlite" if kind == "sqlite" else fresh_url())


def teen_record(operator: Operator) -> Served:
    """A server on the operator's new store, with the record of one teenager as the first such server of this process loaded it."""
    kind = operator.url.partition(":")[0], repr(operator.settings)
    if kind not in _teen_records:
        operator.must("create-store")
        served = Served(operator.url, seeds=False)
        served.load(ROOT / "seed_bundles/00-directory.json", ROOT / "seed_bundles/30-teen.json")
        served.close()
        _teen_records[kind] = copy_of(operator.url)
    else:
        _teen_records[kind](operator.url)
    return Served(operator.url, seeds=False)
