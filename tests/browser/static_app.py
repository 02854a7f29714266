"""Serves the folder of a browser app at an origin of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import BinaryIO


@dataclass(frozen=True)
class Replaced:
    """What is served otherwise than the folder has it: further ``files`` by path, and, in pages, ``found`` as ``by``."""

    files: Mapping[str, bytes]
    found: re.Pattern[bytes]
    by: bytes


class _Files(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, replaced: Replaced | None, directory: str) -> None:
        self._replaced = replaced
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if self._replaced is None:
            return super().send_head()
        path = self.path.partition("?")[0]
        page = Path(self.translate_path(path))
        page = page / "index.html" if page.is_dir() else page
        if path in self._replaced.files:
            return self._sent(self._replaced.files[path], "text/javascript")
        if page.suffix == ".html" and page.is_file():
            return self._sent(self._replaced.found.sub(self._replaced.by, page.read_bytes()), "text/html; charset=utf-8")
        return super().send_head()

    def _sent(self, body: bytes, type: str) -> io.BytesIO:
        self.send_response(200)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served_folder(folder: Path, replaced: Replaced | None = None) -> Iterator[str]:
    """The origin at which the files of ``folder`` are served."""
    handler = partial(_Files, replaced=replaced, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
