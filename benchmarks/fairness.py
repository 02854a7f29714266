"""Measures whether one client can hold up others: ``python -m benchmarks.fairness``.

A client sends the costliest requests that are known, and some hundred searches drawn from the CapabilityStatement, while another
process reads one resource again and again.  The program prints for each attack how long those reads took and how much memory the
server and its processes had, and exits with 1 if a read took longer than the limit or the memory was larger.

With ``--slices`` the server's event loop is asyncio's and reports its long steps (:mod:`benchmarks.slices`); the program prints their
number and the CPU time of the longest.  Unlike the times of reads, these do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import quote, urlsplit

from benchmarks import stores
from benchmarks.servers import Process, fhir_server

LONGEST: Final = 0.1  # seconds that another client's read may take
P99_OF_CROWD: Final = 0.02  # its 99th percentile beside a client with 64 connections
MEGABYTES: Final = 400
_PAUSE: Final = 0.003
_JSON: Final = "application/fhir+json"
_DIV: Final = b'"text":{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">%s</div>"}'
_LAB: Final[dict[str, Any]] = {
    "resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
    "subject": {"reference": "Patient/self-1"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One attack: what it was answered, how long it took, the other client's reads in seconds, and the most megabytes."""

    name: str
    answer: str
    seconds: float
    reads: list[float]
    megabytes: float
    slices: list[float] | None = None

    @property
    def longest(self) -> float:
        return max(self.reads, default=0.0)

    @property
    def p99(self) -> float:
        return sorted(self.reads)[int(len(self.reads) * 0.99)] if self.reads else 0.0

    @property
    def is_miss(self) -> bool:
        is_crowd = "connections" in self.name
        return self.longest > LONGEST or self.megabytes > MEGABYTES or (is_crowd and self.p99 > P99_OF_CROWD) or not self.reads

    def line(self) -> str:
        """A line of the table."""
        numbers = f"{1000 * self.p99:6.1f} | {1000 * self.longest:6.1f} | {self.megabytes:5.0f} | {self.seconds:6.1f}"
        slices = "" if self.slices is None else f" {len(self.slices):3} | {max(self.slices, default=0):6.1f} |"
        return f"| {self.name:58} | {self.answer[:12]:12} | {len(self.reads):6} | {numbers} | {'MISS' if self.is_miss else 'ok'} |{slices}"


def watch(origin: str, token: str, path: str, ready: Any, stop: Any, found: Any) -> None:
    """In its own process: read one resource until told to stop, and report how long each read took."""
    host = urlsplit(origin).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    times: list[float] = []
    while not stop.is_set():
        began = time.perf_counter()
        try:
            connection.request("GET", "/fhir/" + path, headers={"Authorization": "Bearer " + token})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise OSError(f"a read was answered with {answer.status}")
        except (OSError, http.client.HTTPException):
            connection.close()
            times.append(60.0)
        else:
            if ready.is_set():
                times.append(time.perf_counter() - began)
            ready.set()  # the first read opens the connection, and is not counted
        time.sleep(_PAUSE)
    found.put(times)


def memory(pid: int) -> float:
    """The resident megabytes, without mapped files, of a process and its children."""
    total = 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for one in [pid, *map(int, children.read_text().split() if children.exists() else ())]:
        with suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    total += int(line.split()[1]) / 1024
    return total


class Bench:
    """A server, an attacker and another client."""

    def __init__(self, server: Process, tokens: dict[str, str], slices: Path | None = None) -> None:
        self.server, self.tokens, self.slices = server, tokens, slices
        self.host = urlsplit(server.origin).netloc

    def send(self, token: str | None, method: str, path: str, body: bytes | None = None) -> str:
        """Send a request of the attacker; return the status."""
        connection = http.client.HTTPConnection(self.host, timeout=180)
        headers = {"Content-Type": _JSON} | ({"Authorization": "Bearer " + self.tokens.get(token, token)} if token else {})
        try:
            connection.request(method, "/fhir/" + path, body, headers)
            answer = connection.getresponse()
            while answer.read(1 << 20):
                pass
            return str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def measure(self, name: str, attack: Callable[[], str]) -> Measured:
        """Run the attack beside the other client's reads."""
        context = multiprocessing.get_context("spawn")
        ready, stop, found = context.Event(), context.Event(), context.Queue()
        args = (self.server.origin, self.tokens["self-1"], "Observation/self-1-lab-1", ready, stop, found)
        watching = context.Process(target=watch, args=args, daemon=True)
        watching.start()
        ready.wait()
        most = [memory(self.server.pid)]
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.05):
                most[0] = max(most[0], memory(self.server.pid))

        sampling = threading.Thread(target=sample)
        sampling.start()
        if self.slices:
            self.slices.write_text("")
        began = time.perf_counter()
        answer = attack()
        seconds = time.perf_counter() - began
        time.sleep(max(0.2, 1 - seconds))
        stop.set()
        times = found.get(timeout=120)
        watching.join()
        done.set()
        sampling.join()
        long = None if self.slices is None else [json.loads(line)["ms"] for line in self.slices.read_text().splitlines()]
        return Measured(name, answer, seconds, times, most[0], long)


def questionnaire(items: int) -> bytes:
    """A Questionnaire of short items with one linkId."""
    return b'{"resourceType":"Questionnaire","status":"active","item":[%s]}' % b",".join([b'{"linkId":"1a","type":"string"}'] * items)


def narrative(size: int) -> bytes:
    """An Observation with this many bytes of narrative."""
    return b'{"resourceType":"Observation","id":"zz","status":"final","code":{"text":"x"},%s}' % (_DIV % (b"<b>x</b>" * (size // 8)))


def structure(elements: int) -> bytes:
    """A StructureDefinition with this many elements."""
    listed = [{"id": f"X.{number}", "path": f"X.{number}"} for number in range(elements)]
    return json.dumps(
        {"resourceType": "StructureDefinition", "url": "http://x.example", "name": "X", "status": "active", "kind": "logical",
         "abstract": False, "type": "X", "snapshot": {"element": listed}}
    ).encode()  # fmt: skip


def batch(*urls: str) -> bytes:
    """A batch of reads."""
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    return json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}).encode()


def creates(count: int) -> bytes:
    """A transaction of creates."""
    entry = {"request": {"method": "POST", "url": "Observation"}, "resource": _LAB}
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry] * count}).encode()


def linked(count: int, references: int) -> bytes:
    """A transaction in which each entry refers to others many times."""
    names = [f"urn:uuid:00000000-0000-0000-0000-{number:012d}" for number in range(count)]
    members = [{"reference": names[number % count]} for number in range(references)]
    entries = [
        {"fullUrl": name, "request": {"method": "POST", "url": "Observation"}, "resource": {**_LAB, "hasMember": members}} for name in names
    ]
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()


SORTED: Final = "Observation?_sort=value-quantity,date,code&_count=1000"


def attacks(bench: Bench) -> Iterator[tuple[str, Callable[[], str]]]:
    """The known attacks, by name."""

    def one(token: str | None, method: str, path: str, body: bytes | None = None) -> Callable[[], str]:
        return lambda: bench.send(token, method, path, body)

    def many(connections: int, requests: int, token: str, path: str) -> Callable[[], str]:
        def run() -> str:
            with ThreadPoolExecutor(connections) as pool:
                answers = list(pool.map(lambda _: bench.send(token, "GET", path), range(requests)))
            return "/".join(sorted(set(answers)))

        return run

    yield "nothing", one("backend", "GET", "Observation?_count=10")
    for token in (None, "backend"):
        by = "no token: " if token is None else ""
        yield f"{by}Questionnaire of 730,000 items (23 MB)", one(token, "POST", "Questionnaire", questionnaire(730_000))
        yield f"{by}narrative of 31 MB", one(token, "POST", "Observation", narrative(31_000_000))
        yield f"{by}PUT narrative of 31 MB", one(token, "PUT", "Observation/zz", narrative(31_000_000))
        yield f"{by}Questionnaire of 48,000 items (1.5 MB)", one(token, "POST", "Questionnaire", questionnaire(48_000))
        yield f"{by}StructureDefinition of 40,000 elements", one(token, "POST", "StructureDefinition", structure(40_000))
    yield "Questionnaire of 250,000 items (8 MB)", one("backend", "POST", "Questionnaire", questionnaire(250_000))
    yield "narrative of 8 MB", one("backend", "POST", "Observation", narrative(8_000_000))
    yield "narrative of 1 MB", one("backend", "POST", "Observation", narrative(1_000_000))
    yield "app: batch of 5,000 x $everything", one("self-0", "POST", "", batch(*["Patient/self-0/$everything"] * 5000))
    yield "batch of 30 x sort by three keys", one("backend", "POST", "", batch(*[SORTED] * 30))
    yield "batch of 100 sorted pages of 1,000", one("backend", "POST", "", batch(*["Observation?_sort=-date&_count=1000"] * 100))
    yield "batch of 100 counts", one("backend", "POST", "", batch(*["Observation?status=final&_summary=count"] * 100))
    yield "190 x date=ne", one("backend", "GET", "Observation?" + "&".join(["date=ne2031"] * 190))
    yield "190 x code:not", one("backend", "GET", "Observation?_total=accurate&" + "&".join(f"code:not=x{n}" for n in range(190)))
    yield "190 x value-quantity=ne", one("backend", "GET", "Observation?" + "&".join(f"value-quantity=ne{n}" for n in range(190)))
    yield "sort by three keys", one("backend", "GET", SORTED)
    yield (
        "three _revinclude",
        one(
            "backend",
            "GET",
            "Patient?_count=1000&_revinclude=Observation:subject&_revinclude=Encounter:subject&_revinclude=Condition:subject",
        ),
    )
    yield "app: $everything", one("self-0", "GET", "Patient/self-0/$everything")
    yield "transaction of 5,000 creates", one("backend", "POST", "", creates(5000))
    yield "transaction of 100 x 5,000 references (32 MB)", one("backend", "POST", "", linked(100, 5000))
    yield "batch of 5,000 creates", one("backend", "POST", "", creates(5000).replace(b'"transaction"', b'"batch"'))
    yield "64 connections: plain reads", many(64, 4000, "backend", "Observation/self-0-lab-1")
    yield "64 connections: searches of 50", many(64, 1000, "backend", "Observation?_count=50")
    yield "16 connections: sorted pages of 1,000", many(16, 64, "backend", "Observation?_sort=-date&_count=1000")
    yield "16 connections: sort by three keys", many(16, 32, "backend", SORTED)
    yield "1,100 half heads", lambda: half_open(bench.host, 1100)
    yield "no token: 20 bodies of 32 MB that do not end", lambda: unfinished(bench.host, None)
    yield "20 bodies of 32 MB that do not end", lambda: unfinished(bench.host, bench.tokens["backend"])


def half_open(host: str, count: int) -> str:
    """Open connections that send half a head."""
    address, _, port = host.partition(":")
    opened = []
    for _ in range(count):
        with suppress(OSError):
            opened.append(socket.create_connection((address, int(port)), timeout=5))
            opened[-1].sendall(b"GET /fhir/metadata HT")
    time.sleep(3)
    for one in opened:
        one.close()
    return f"{len(opened)} opened"


def unfinished(host: str, token: str | None) -> str:
    """Send bodies whose last byte never comes."""
    address, _, port = host.partition(":")
    head = f"POST /fhir/ HTTP/1.1\r\nHost: x\r\nContent-Type: {_JSON}\r\nContent-Length: 33000000\r\n"
    head += f"Authorization: Bearer {token}\r\n\r\n" if token else "\r\n"

    def send(_: int) -> socket.socket | None:
        try:
            one = socket.create_connection((address, int(port)), timeout=5)
            one.sendall(head.encode())
            for _ in range(32):
                one.sendall(b" " * 1_000_000)
        except OSError:
            return None
        return one

    with ThreadPoolExecutor(20) as pool:
        opened = list(pool.map(send, range(20)))
    time.sleep(2)
    for each in opened:
        if each is not None:
            each.close()
    return f"{sum(each is not None for each in opened)} of 20 taken"


_VALUES: Final = {
    "token": ("final", "http://loinc.org|718-7", "718-7", "|", "x"),
    "reference": ("Patient/self-0", "Patient/crowd-1,Patient/crowd-2", "self-0"),
    "date": ("ge2016", "lt2027-01-01", "ne2020-03", "2019", "sa2018-05-05"),
    "string": ("a", "Self", "x" * 60),
    "quantity": ("gt1", "ne5", "lt100||mg/dL", "5.4"),
    "number": ("gt1", "5"),
    "uri": ("http://example.org", "urn:x"),
}
_MODIFIERS: Final = {"token": (":not", ":missing"), "string": (":contains", ":exact"), "date": (":missing",), "reference": (":missing",)}


def shapes(statement: dict[str, Any], count: int, random: Random) -> Iterator[str]:
    """Search URLs drawn from the CapabilityStatement: the types that the store holds more often than others."""
    resources = {one["type"]: one for one in statement["rest"][0]["resource"]}
    held = [type for type in ("Observation", "Encounter", "Condition", "MedicationRequest", "Patient") if type in resources]
    for _ in range(count):
        type = random.choice(held) if random.random() < 0.85 else random.choice(sorted(resources))
        one = resources[type]
        parameters = [each for each in one.get("searchParam", ()) if each["type"] in _VALUES]
        pairs: list[tuple[str, str]] = []
        for each in random.choices(parameters, k=random.choice((0, 1, 1, 2, 3, 6, 40))) if parameters else ():
            modifier = random.choice(("", "", *_MODIFIERS.get(each["type"], ())))
            value = random.choice(("true", "false")) if modifier == ":missing" else random.choice(_VALUES[each["type"]])
            pairs.append((each["name"] + modifier, value))
        sortable = [each["name"] for each in parameters]
        if sortable and random.random() < 0.6:
            pairs.append(
                ("_sort", ",".join(random.choice(("", "-")) + random.choice(sortable) for _ in range(random.choice((1, 1, 2, 3)))))
            )
        pairs.append(("_count", random.choice(("10", "200", "1000", "1000"))))
        if random.random() < 0.4:
            pairs.append(("_total", "accurate"))
        for name in ("searchInclude", "searchRevInclude"):
            for each in random.sample(one.get(name, []), min(len(one.get(name, [])), random.choice((0, 0, 1, 3)))):
                pairs.append(("_include" if name == "searchInclude" else "_revinclude", each))
        yield f"{type}?" + "&".join(f"{quote(name, safe=':')}={quote(value, safe='')}" for name, value in pairs)


def drawn(bench: Bench, count: int, random: Random) -> Iterator[Measured]:
    """Measure searches drawn from the CapabilityStatement, twenty at a time."""
    connection = http.client.HTTPConnection(bench.host)
    connection.request("GET", "/fhir/metadata")
    urls = list(shapes(json.load(connection.getresponse()), count, random))
    for start in range(0, len(urls), 20):
        group = urls[start : start + 20]
        answers: dict[str, int] = {}

        def run(group: list[str] = group, answers: dict[str, int] = answers) -> str:
            for url in group:
                status = bench.send("backend", "GET", url)
                answers[status] = answers.get(status, 0) + 1
            return " ".join(f"{number}x{status}" for status, number in sorted(answers.items()))

        yield bench.measure(f"drawn searches {start + 1} to {start + len(group)}", run)


@contextmanager
def running(rows: int, *, with_slices: bool = False) -> Iterator[Bench]:
    """A server on a store of this size; ``with_slices``: it reports the long steps of its event loop."""
    import asyncio

    path = stores.copy_of_size(rows)
    slices = path.with_suffix(".slices") if with_slices else None
    try:
        tokens = asyncio.run(stores.access_tokens(stores.sqlite_url(path)))
        with fhir_server(stores.sqlite_url(path), core=None, slices=slices) as server:
            yield Bench(server, tokens, slices)
    finally:
        stores.remove(path)
        if slices:
            slices.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="number of resources in the store; default 60,000")
    parser.add_argument("--searches", type=int, default=200, help="number of searches drawn from the CapabilityStatement; default 200")
    parser.add_argument("--seed", type=int, default=1, help="of the drawn searches")
    parser.add_argument("--only", default="", help="run the attacks whose name contains this")
    parser.add_argument("--slices", action="store_true", help="print the number of long steps of the event loop, and the longest in ms")
    options = parser.parse_args()
    print(f"| {'one client asks':58} | answer       | reads  | p99 ms | max ms |    MB | took s |    |")
    print("|---|---|---|---|---|---|---|---|")
    misses = 0
    with running(options.rows, with_slices=options.slices) as bench:
        named = (bench.measure(name, attack) for name, attack in attacks(bench) if options.only in name)
        searches = drawn(bench, options.searches, Random(options.seed)) if options.only in "drawn" else iter(())
        for results in (named, searches):
            for measured in results:
                print(measured.line(), flush=True)
                misses += measured.is_miss
    print(f"{misses} of these held up another client's read for more than {1000 * LONGEST:.0f} ms, or took too much memory.")
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
