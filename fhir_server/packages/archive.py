"""Reads FHIR packages: npm archives (``.tgz``) from disk, which nobody has checked, and the packages of the product.

An archive is read from its beginning to its end; nothing of it is written to a disk or run.  What is not an ordinary file is refused, and
so is what would take more room than a package needs.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

import msgspec

from fhir_server import jsontext
from fhir_server.errors import Problem

MAX_FILES: Final = 20_000
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_BYTES: Final = 1024 * 1024 * 1024
_HEADERS: Final = 1024 * 1024
# What a package defines; the rest of it (examples, tests, OpenAPI) is not loaded.
KINDS: Final = frozenset(
    {
        "CapabilityStatement", "CodeSystem", "CompartmentDefinition", "ConceptMap", "GraphDefinition", "ImplementationGuide",
        "NamingSystem", "OperationDefinition", "Questionnaire", "SearchParameter", "StructureDefinition", "StructureMap", "ValueSet",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{0,99}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+\-]{0,49}")
_R4: Final = re.compile(r"4\.0(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Package:
    """A package: what its ``package.json`` says, and the JSON text of its definitions, by their names in the archive."""

    name: str
    version: str
    dependencies: Mapping[str, str]
    definitions: Mapping[str, bytes]

    @property
    def label(self) -> str:
        """``name#version``, as packages are called."""
        return f"{self.name}#{self.version}"


def read_archive(path: Path) -> Package:
    """Read a ``.tgz`` (or ``.tar.xz``).  Raises ValueError, with a message for the operator, for what is no R4 package."""
    manifest: bytes | None = None
    definitions: dict[str, bytes] = {}
    try:
        for name, text in _files(path):
            if name == "package/package.json":
                manifest = text
            elif is_definition(name, text):
                definitions[name] = text
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable package: {error}.") from None
    if manifest is None:
        raise ValueError(f"{path} is not a FHIR package: it has no package/package.json.")
    return package_of_manifest(manifest, definitions, str(path))


def package_of_manifest(manifest: bytes, definitions: Mapping[str, bytes], path: str) -> Package:
    """The package of a ``package.json`` and these definitions.  Raises ValueError for a manifest of another FHIR version."""
    try:
        value = jsontext.parse(manifest)
    except Problem:
        value = None
    name, version = (value.get("name"), value.get("version")) if isinstance(value, dict) else (None, None)
    if not (isinstance(name, str) and isinstance(version, str) and _NAME.fullmatch(name) and _VERSION.fullmatch(version)):
        raise ValueError(f"The package.json of {path} has no valid name and version.")
    versions = value.get("fhirVersions", value.get("fhir-version-list", ()))
    if not isinstance(versions, list) or not any(_R4.fullmatch(str(version)) for version in versions):
        raise ValueError(f"{path} is not a package for FHIR R4 (4.0).")
    dependencies = value.get("dependencies", {})
    named = {str(name): str(version) for name, version in dependencies.items()} if isinstance(dependencies, dict) else {}
    return Package(name, version, named, definitions)


def is_definition(name: str, text: bytes) -> bool:
    """Whether a file of a package, directly in its folder, is a definition."""
    path = PurePosixPath(name)
    if len(path.parts) != 2 or path.suffix != ".json" or path.name in ("package.json", ".index.json"):
        return False
    return _kind(text) in KINDS


def _kind(text: bytes) -> Any:
    try:
        return jsontext.parse(jsontext.members(text).get("resourceType", b"null"))
    except (Problem, msgspec.DecodeError):
        return None


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files that count.  Raises ValueError for an archive that may be meant to harm."""
    names: set[str] = set()
    size = 0
    with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            stream.allow(MAX_FILE_BYTES)
            _require_harmless(member, path)
            size += member.size
            if member.name in names or len(names) >= MAX_FILES or member.size > MAX_FILE_BYTES or size > MAX_BYTES:
                raise ValueError(f"{path} is refused: {member.name[:80]!r} occurs twice, or the package has too many or too large files.")
            names.add(member.name)
            if member.isreg() and member.name.startswith("package/") and member.name.endswith(".json"):
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name, content.read(MAX_FILE_BYTES)


class _Bounded(io.RawIOBase):
    """The archive without its compression.  Between two files it gives no more than one file, and the headers before it, may have."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = 0
        self.allow(MAX_FILE_BYTES)

    def allow(self, size: int) -> None:
        """Let the next file have this size, beyond the rest of the last one."""
        self._left = 2 * size + _HEADERS

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("The package is refused: a file of it is too large, or its headers are.")
        return content

    def close(self) -> None:
        self._stream.close()
        super().close()


def _opened(path: Path) -> _Bounded:
    with path.open("rb") as file:
        is_xz = file.read(6) == b"\xfd7zXZ\0"
    return _Bounded(cast(IO[bytes], lzma.open(path) if is_xz else gzip.open(path)))


def _require_harmless(member: tarfile.TarInfo, path: Path) -> None:
    parts = PurePosixPath(member.name).parts
    if member.name.startswith(("/", "\\")) or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise ValueError(f"{path} is refused: it names the path {member.name[:80]!r}.")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ValueError(f"{path} is refused: {member.name[:80]!r} is not an ordinary file.")
