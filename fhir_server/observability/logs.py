"""The server's log: lines of text or of JSON, each with the id of its request, on standard error or in a file.

An exception is written as its type and the places in the code.  Its message and local values are left out, because they can hold what a
caller sent or what is stored; only messages of the operating system and of SQLite are kept, which have fixed texts.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, Final

from fhir_server.request_ids import request_id, trace_ids
from fhir_server.store import explain_failure

ACCESS: Final = "fhir_server.access"
LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")


class _Formatter(logging.Formatter):
    """Formats a record as one line of JSON, or as text."""

    def __init__(self, store: str, *, is_json: bool) -> None:
        super().__init__()
        self._store = store
        self._is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().partition("\n")[0],  # of asyncio's, the next lines describe objects with their values
            "request_id": getattr(record, "request_id", "") or request_id.get(),
            **getattr(record, "facts", {}),
        }
        if trace := trace_ids.get():
            line["trace_id"], line["span_id"] = trace
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = self._describe(record.exc_info[1])
        return json.dumps(line) if self._is_json else _as_text(line)

    def _describe(self, error: BaseException) -> dict[str, Any]:
        """The types and places of an exception and of its causes."""
        described: dict[str, Any] = {"type": type(error).__name__}
        if isinstance(error, Exception) and (known := _fixed_message(self._store, error)):
            described["message"] = known
        frames = traceback.extract_tb(error.__traceback__)
        described["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        cause = error.__cause__ or error.__context__
        if cause is not None:
            described["cause"] = self._describe(cause)
        return described


def _fixed_message(store: str, error: Exception) -> str | None:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return explain_failure(store, error)


def _as_text(line: dict[str, Any]) -> str:
    described = line.pop("exception", None)
    time, level, logger, message = (line.pop(name) for name in ("time", "level", "logger", "message"))
    rest = " ".join(f"{name}={value}" for name, value in line.items() if value != "")
    lines = [f"{time} {level.upper()} {logger}: {message}" + (f" [{rest}]" if rest else "")]
    while described is not None:
        lines += [f"  {described['type']}: {described.get('message', '')}".rstrip(": "), *(f"    {frame}" for frame in described["frames"])]
        described = described.get("cause")
    return "\n".join(lines)


def configure_logs(store: str, level: str, form: str, file: str) -> None:
    """Send all log records of this process to ``file`` ("": standard error).  Raises OSError if the file cannot be opened."""
    handler: logging.Handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    handler.setFormatter(_Formatter(store, is_json=form == "json"))
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in ("httpx", "httpcore", "pymongo", "asyncio", "urllib3"):  # they log URLs and commands
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
