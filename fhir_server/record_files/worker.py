"""The process that makes files (``python -m fhir_server.record_files.worker``): one task from its input, the file to its output.

Input: the length of the task's MessagePack in 8 bytes, the task, the Bundle.  A file that takes too long, or is too large, is none.
"""

from __future__ import annotations

import resource
import sys

import msgspec

from fhir_server.record_files import content, page
from fhir_server.record_files.task import LENGTH_BYTES, TOO_LARGE, Task


def make(task: Task, bundle: bytes) -> bytes:
    """The file."""
    built = content.build(task, bundle)
    if task.kind == "html":
        return page.page(built)
    from fhir_server.record_files import pdf  # ReportLab takes longer to import than most pages to make

    return pdf.pdf(built)


def main() -> None:
    """Make one file."""
    source = sys.stdin.buffer
    task = msgspec.msgpack.decode(source.read(int.from_bytes(source.read(LENGTH_BYTES))), type=Task)
    resource.setrlimit(resource.RLIMIT_CPU, (task.seconds, resource.RLIM_INFINITY))  # then SIGXCPU ends the process
    made = make(task, source.read())
    if len(made) > task.most:
        sys.exit(TOO_LARGE)
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    main()
