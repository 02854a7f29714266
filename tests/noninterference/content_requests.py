"""Requests of raw content that the twin servers get: of a Binary, in the media type that it has or in another one."""

from __future__ import annotations

from tests.noninterference.operation_requests import OperationRequests
from tests.noninterference.paired_server import Ask

_ACCEPTED = ("*/*", "text/plain", "application/pdf", "application/fhir+json")
_RANGES = ("bytes=0-2", "bytes=100000-")


class ContentRequests(OperationRequests):
    """Reads of what is stored as a Binary."""

    def _files(self) -> list[str]:
        return [name for name in (*self._probes.hidden_ids, *self._probes.shown_ids) if name.startswith("Binary/")]

    def steady_content(self) -> list[Ask]:
        """Return the reads that are sent in every case."""
        asks = [Ask.get("content", name, accept=accept) for name in self._files() for accept in _ACCEPTED]
        return asks + [Ask.get("range", name, accept="*/*", range=range) for name in self._files() for range in _RANGES]

    def content(self) -> Ask:
        """Read a Binary or one of its versions, as its content or as a resource; compressed or not."""
        name = self._pick(*self._files(), self._name())
        path = name + self._pick("", "", "/_history/1")
        return Ask.get("content", path, accept=self._pick(*_ACCEPTED), accept_encoding=self._pick("gzip", "identity"))
