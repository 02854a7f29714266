"""Packages from disk: what is read of them, and archives that are meant to harm."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.packages import archive
from fhir_server.packages.archive import read_archive

MANIFEST = {"name": "x.y", "version": "1.0.0", "fhirVersions": ["4.0.1"], "dependencies": {"hl7.fhir.r4.core": "4.0.1"}}
VALUE_SET = {"resourceType": "ValueSet", "id": "colours", "url": "http://x.example/colours", "status": "active"}


def made(path: Path, files: dict[str, Any], change: Callable[[tarfile.TarFile], None] = lambda _: None) -> Path:
    """An archive of these files, JSON or bytes, and of what ``change`` adds."""
    with tarfile.open(path, "w:gz") as written:
        for name, content in files.items():
            add(written, name, content if isinstance(content, bytes) else json.dumps(content).encode())
        change(written)
    return path


def add(written: tarfile.TarFile, name: str, text: bytes, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text)
    for field, value in fields.items():
        setattr(member, field, value)
    written.addfile(member, io.BytesIO(text))


def test_definitions_are_read_and_examples_are_not(tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "p"}
    files = {
        "package/package.json": MANIFEST, "package/.index.json": {"files": []}, "package/ValueSet-colours.json": VALUE_SET,
        "package/Patient-p.json": patient, "package/example/ValueSet-e.json": VALUE_SET, "package/other.txt": b"x", "package/x.json": b"{",
    }  # fmt: skip
    found = read_archive(made(tmp_path / "x.tgz", files))
    assert (found.label, found.dependencies, [*found.definitions]) == (
        "x.y#1.0.0",
        MANIFEST["dependencies"],
        ["package/ValueSet-colours.json"],
    )


def link(kind: bytes) -> Callable[[tarfile.TarFile], None]:
    return lambda written: add(written, "package/link.json", b"", type=kind, linkname="../../etc/passwd")


HOSTILE: dict[str, Callable[[tarfile.TarFile], None]] = {
    "a path out of the folder": lambda written: add(written, "package/../../x.json", b"{}"),
    "an absolute path": lambda written: add(written, "/etc/x.json", b"{}"),
    "a path with a backslash": lambda written: add(written, "package\\..\\x.json", b"{}"),
    "a symbolic link": link(tarfile.SYMTYPE),
    "a hard link": link(tarfile.LNKTYPE),
    "a device": link(tarfile.CHRTYPE),
    "a pipe": link(tarfile.FIFOTYPE),
    "a file twice": lambda written: add(written, "package/package.json", json.dumps(MANIFEST).encode()),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused(tmp_path: Path, change: Callable[[tarfile.TarFile], None]) -> None:
    with pytest.raises(ValueError, match="refused"):
        read_archive(made(tmp_path / "x.tgz", {"package/package.json": MANIFEST}, change))
    assert [*tmp_path.iterdir()] == [tmp_path / "x.tgz"]


def test_large_files_many_files_and_large_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"package/package.json": MANIFEST, "package/a.json": {"a": "x" * 3000}, "package/b.json": {"a": "x" * 3000}}
    path = made(tmp_path / "x.tgz", files)
    assert read_archive(path).label == "x.y#1.0.0"
    for name, value in (("MAX_FILE_BYTES", 2000), ("MAX_FILES", 2), ("MAX_BYTES", 5000)):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="refused"):
            patch.setattr(archive, name, value)
            read_archive(path)


def test_headers_that_grow_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a header's extension is no file's size, and the library reads all of it."""
    monkeypatch.setattr(archive, "_HEADERS", 10_000)
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10_000)
    text = tarfile.TarInfo("package/a.json").tobuf(tarfile.PAX_FORMAT)
    huge = tarfile.TarInfo("././@PaxHeader")
    huge.type, huge.size = tarfile.XHDTYPE, 1_000_000
    content = huge.tobuf() + b"0" * 1_000_448 + text
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="refused"):
        read_archive(path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"package/ValueSet-colours.json": VALUE_SET}, "no package/package.json"),
        ({"package/package.json": b"{"}, "no valid name"),
        ({"package/package.json": MANIFEST | {"name": "../x"}}, "no valid name"),
        ({"package/package.json": MANIFEST | {"version": "1/2"}}, "no valid name"),
        ({"package/package.json": {name: value for name, value in MANIFEST.items() if name != "version"}}, "no valid name"),
        ({"package/package.json": MANIFEST | {"version": 1}}, "no valid name"),
        ({"package/package.json": MANIFEST | {"fhirVersions": ["5.0.0"]}}, "not a package for FHIR R4"),
        ({"package/package.json": MANIFEST | {"fhirVersions": "4.0.1"}}, "not a package for FHIR R4"),
    ],
)
def test_what_is_no_package_for_r4_is_refused(tmp_path: Path, files: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_archive(made(tmp_path / "x.tgz", files))


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar" * 500), gzip.compress(b"x" * 2000)[:-20], b"\xfd7zXZ\0broken"],
    ids=["nothing", "text", "no tar", "cut off", "another compression"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="package"):
        read_archive(path)
    with pytest.raises(ValueError, match="not a readable package"):
        read_archive(tmp_path / "missing.tgz")
