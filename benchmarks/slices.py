"""``fhir-server`` with an event loop that reports its long steps: ``python -m benchmarks.slices serve ...``.

For each step that takes more than a limit of CPU time, a line of JSON goes to the file that ``BENCHMARKS_SLICES`` names: the CPU time of
the step in milliseconds, how much of it was garbage collection, what ran, and where it was most of the time.  CPU time of the loop's
thread does not depend on what else the machine does, unlike the time that another client waits.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from asyncio.events import Handle
from collections import Counter
from pathlib import Path
from traceback import extract_stack
from typing import Any, Final

from fhir_server.cli import main, serve

LIMIT: Final = 0.01  # seconds of CPU time
_SAMPLES: Final = 0.002  # seconds between two looks at the loop's stack
_ROOT: Final = str(Path(__file__).parents[1])


class _Watch:
    """The step that runs, and where it has been seen."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115 - until the process ends
        self._thread = threading.get_ident()
        self._began = self._collecting_since = self._collected = 0.0
        self._seen: Counter[str] = Counter()
        gc.callbacks.append(self._note_collection)
        threading.Thread(target=self._sample, daemon=True).start()

    def _note_collection(self, phase: str, _: object) -> None:
        if threading.get_ident() == self._thread:
            if phase == "start":
                self._collecting_since = time.thread_time()
            else:
                self._collected += time.thread_time() - self._collecting_since

    def run(self, handle: Handle, right: Any) -> None:
        self._seen.clear()
        self._collected = 0.0
        self._began = time.thread_time()
        right(handle)
        cpu = time.thread_time() - self._began
        self._began = 0.0
        if cpu > LIMIT:
            where = [f"{name} ({number})" for name, number in self._seen.most_common(4)]
            self._file.write(
                json.dumps({"ms": round(1000 * cpu, 1), "gc": round(1000 * self._collected, 1), "what": _name(handle), "where": where})
                + "\n"
            )

    def _sample(self) -> None:
        while True:
            time.sleep(_SAMPLES)
            if self._began and (frame := sys._current_frames().get(self._thread)):
                own = [
                    f"{one.filename.removeprefix(_ROOT)[1:]}:{one.lineno} {one.name}"
                    for one in extract_stack(frame)
                    if _is_own(one.filename)
                ]
                self._seen[" < ".join(own[:-4:-1])] += 1


def _is_own(filename: str) -> bool:
    return filename.startswith(_ROOT) and "/benchmarks/" not in filename and "/.venv/" not in filename


def _name(handle: Any) -> str:
    owner = getattr(handle._callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return str(getattr(owner.get_coro(), "__qualname__", owner))
    return str(getattr(handle._callback, "__qualname__", handle._callback))


def watch() -> None:
    """Let asyncio's loop report its long steps, and let the server use this loop."""
    watching = _Watch(os.environ["BENCHMARKS_SLICES"])
    right = Handle._run
    Handle._run = lambda handle: watching.run(handle, right)  # type: ignore[method-assign, assignment]
    options = serve._uvicorn_options
    serve._uvicorn_options = lambda host, port: {**options(host, port), "loop": "asyncio"}


if __name__ == "__main__":
    watch()
    main.main()
