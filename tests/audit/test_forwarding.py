"""``journal --follow``: each line of the audit log is forwarded once, and a receiver can tell a line that a kill repeats."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fhir_server.audit import forwarding
from tests.audit.test_commands import add_users, environment, forge, run
from tests.served import ROOT
from tests.waiting import HANG, wait_until

__all__ = ["environment"]
SYSLOG = re.compile(r'<(\d+)>1 (\S+) (\S+) fhir-server - (\S+) \[meta sequenceId="(\d+)"\] (\{.*\})')


def numbers(text: str) -> list[int]:
    return [json.loads(line)["number"] for line in text.splitlines()]


def test_cursor_goes_on_where_the_last_run_ended(environment: dict[str, str], tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    add_users(environment, 2)
    first = numbers(run(environment, f"journal --format json --cursor {cursor}").output)
    add_users(environment, 0)
    run(environment, "user add nurse-9 --role clinician --password A-long-pass-2026")
    second = numbers(run(environment, f"journal --format json --cursor {cursor}").output)
    assert first == [1, 2, 3] and second == [4, 5]
    assert numbers(run(environment, f"journal --format json --cursor {cursor} --after 1").output) == [2, 3, 4, 5, 6]
    assert numbers(run(environment, f"journal --format json --cursor {cursor}").output) == [7]


def test_syslog_messages_hold_the_event_time_and_severity(environment: dict[str, str]) -> None:
    add_users(environment, 1)
    forge(
        environment, """UPDATE journal SET line = CAST(replace(CAST(line AS TEXT), '"outcome":"0"', '"outcome":"8"') AS BLOB) WHERE n = 1"""
    )
    lines = run(environment, "journal --format syslog").output.splitlines()
    found = [SYSLOG.fullmatch(line) for line in lines]
    assert [one and (one[1], one[5]) for one in found] == [("107", "1"), ("110", "2")]
    for one in found:
        assert one is not None
        event = json.loads(one[6])
        assert event["resourceType"] == "AuditEvent" and event["recorded"] == one[2] and event["type"]["code"] == one[4]
    octets = run(environment, "journal --format syslog-octets").output.encode()
    size, _, rest = octets.partition(b" ")
    assert rest[: int(size)].decode() == lines[0] and rest[int(size) :].split(b" ")[0].isdigit()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM journal WHERE n > 1",
        "UPDATE journal SET line = CAST(replace(CAST(line AS TEXT), 'nurse-2', 'nurse-1') AS BLOB) WHERE n = 3",
    ],
    ids=["cut-off", "another-line"],
)
def test_log_that_is_another_is_not_skipped_in_silence(environment: dict[str, str], tmp_path: Path, change: str) -> None:
    cursor = tmp_path / "cursor"
    add_users(environment, 3)
    assert forwarding.CursorFile(cursor).load() is None
    text = run(environment, "journal").output.splitlines()[2].partition("\t")[2].encode()
    forwarding.CursorFile(cursor).save(3, text)
    forge(environment, change)
    refused = run(environment, f"journal --cursor {cursor}")
    assert refused.exit_code == 1 and "the store was restored or replaced" in refused.output


def test_purged_cursor_line_does_not_stop_forwarding(environment: dict[str, str], tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    add_users(environment, 3)
    lines = run(environment, "journal").output.splitlines()
    forwarding.CursorFile(cursor).save(2, lines[1].partition("\t")[2].encode())
    forge(environment, "DELETE FROM journal WHERE n <= 2")
    assert numbers(run(environment, f"journal --format json --cursor {cursor}").output) == [3, 4, 5]


def test_malformed_cursor_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cursor").write_text("not a cursor")
    refused = run(environment, f"journal --cursor {tmp_path / 'cursor'}")
    assert refused.exit_code == 1 and "is no cursor" in refused.output


class Follower:
    """A process that forwards to a file, as a shipper reads it."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.output, self.cursor = folder / "forwarded", folder / "cursor"
        command = [sys.executable, "-m", "fhir_server", "journal", "--follow", "--format", "json", "--cursor", str(self.cursor)]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT, stdout=output)

    def numbers(self) -> list[int]:
        return numbers(self.output.read_text().rpartition("\n")[0])

    def wait_for(self, condition: Callable[[list[int]], bool]) -> None:
        wait_until(lambda: condition(self.numbers()), "the lines are forwarded")

    def end(self, with_signal: signal.Signals) -> None:
        self.process.send_signal(with_signal)
        self.process.wait(HANG)


def test_lines_are_forwarded_once_over_stops_and_restarts(environment: dict[str, str], tmp_path: Path) -> None:
    add_users(environment, 2)
    for expected in (3, 5):
        follower = Follower(environment, tmp_path)
        follower.wait_for(lambda found, expected=expected: len(found) >= expected)  # type: ignore[misc]
        run(environment, f"user add later-{expected} --role clinician --password A-long-pass-2026")
        follower.wait_for(lambda found, expected=expected: len(found) >= expected + 1)  # type: ignore[misc]
        follower.end(signal.SIGTERM)
        assert follower.process.returncode == 0
    assert follower.numbers() == list(range(1, len(follower.numbers()) + 1))


def test_killed_follower_loses_no_line(environment: dict[str, str], tmp_path: Path) -> None:
    add_users(environment, 3)
    for expected in (4, 5, 6):
        follower = Follower(environment, tmp_path)
        follower.wait_for(lambda found, expected=expected: max(found, default=0) >= expected)  # type: ignore[misc]
        follower.end(signal.SIGKILL)
    found = follower.numbers()
    assert set(found) == set(range(1, max(found) + 1))
