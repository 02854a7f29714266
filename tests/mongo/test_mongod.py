"""If the MongoDB of the tests does not start, tests fail with the reason and are not skipped."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from tests.mongo import mongod, shared_mongod
from tests.mongo.mongod import ReplicaSet

BROKEN = "#!/bin/sh\necho no space left on device\nexit 1\n"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace mongod with a binary that exits at once.  Return a list with one entry per request for the binary."""
    binary, asked = tmp_path / "mongod", []
    binary.write_text(BROKEN)
    binary.chmod(0o755)

    def installed() -> Path:
        asked.append(binary)
        return binary

    monkeypatch.setattr(mongod, "installed", installed)
    return asked


def test_mongod_start_failure_shows_its_log(broken: list[Path]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)mongod does not start.*no space left on device"):
        ReplicaSet()


def test_failed_mongod_start_fails_each_test_without_retry(broken: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FHIR_SERVER_TEST_MONGODB", raising=False)
    monkeypatch.setattr(shared_mongod, "_started", lru_cache(1)(shared_mongod._started.__wrapped__))  # keeps the real server's cache
    for _ in range(3):
        with pytest.raises(RuntimeError, match="does not start"):
            shared_mongod.emptied_url()
    assert len(broken) == 1


def test_unexpected_mongod_version_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fiftyone/db/bin").mkdir(parents=True)
    (tmp_path / "psycopg2_binary.libs").mkdir()
    for name in ("libcrypto", "libssl"):
        (tmp_path / f"psycopg2_binary.libs/{name}-1.so.1.1").touch()
    binary = tmp_path / "fiftyone/db/bin/mongod"
    binary.write_text("#!/bin/sh\necho db version v4.0.1\n")
    binary.chmod(0o755)
    monkeypatch.setattr(mongod, "CACHE", tmp_path)
    with pytest.raises(RuntimeError, match=r"not the one expected: db version v4\.0\.1"):
        mongod.installed()
