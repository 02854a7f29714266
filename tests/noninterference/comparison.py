"""Sends the same requests to two servers and reports the first byte in which the responses differ."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fhir_server import jsontext
from fhir_server.resources import validate
from tests.noninterference.capability import Capability
from tests.noninterference.case_generator import Case, Secret
from tests.noninterference.oracle import FACT_NAMES
from tests.noninterference.paired_server import BASE, FEED, MINUTE, SECOND, Answer, Ask, World
from tests.noninterference.request_generator import Asker

_CANARY = re.compile(rb"zq[0-9a-f]{9}")


class Leak(AssertionError):
    """The caller can tell the servers apart or sees hidden data."""

    def __init__(self, case: Case, ask: Ask, what: str, answers: Iterable[Answer] = ()) -> None:
        self.case, self.ask = case, ask
        answers = list(answers)
        where = _differing(answers) if len(answers) == 2 else ""
        shown = where + "\n".join(f"--- world {number + 1}\n{answer.bytes().decode()}" for number, answer in enumerate(answers))
        secrets = "\n".join(map(str, (*case.secrets, *case.late)))
        super().__init__(f"{what}\ncase {case.seed}, {case.caller.name}: {ask}\n{shown}\nhidden:\n{secrets}")


def _differing(answers: list[Answer]) -> str:
    """Return both responses around the first byte that differs."""
    one, other = (answer.bytes() for answer in answers)
    place = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
    if b"content-length" in one[max(0, place - 30) : place] and answers[0].body != answers[1].body:
        one, other = (answer.body for answer in answers)
        place = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
    return "\n".join(f"+++ {text[max(0, place - 150) : place + 150]!r}" for text in (one, other)) + "\n"


@dataclass
class Tally:
    """Number of cases and requests, by kind and by status."""

    cases: int = 0
    requests: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)


class Twins:
    """Two servers with the same visible data and different hidden data.

    ``asker`` generates the requests; no answer has more pages than ``most_pages``.
    """

    asker: Callable[[Case, Capability, int], Asker] = Asker
    most_pages = 60

    def __init__(
        self, case: Case, urls: tuple[str, str] = ("memory:", "memory:"), tally: Tally | None = None, thorough: bool = False
    ) -> None:
        """``thorough``: validate every resource of every answer, and not only those that are read by id at the start."""
        self.case = case
        self._thorough = thorough
        self.worlds = (World(urls[0], case.seed), World(urls[1], case.seed))
        self.tally = tally or Tally()
        self._canaries = _canaries(case)
        self._said: set[bytes] = set()
        self._exports: list[str] = []

    async def open(self, without: frozenset[str] = frozenset(), lifetime: int = 60 * MINUTE) -> None:
        """Fill both servers and issue tokens with this lifetime.  The second server is filled ``without`` these rows."""
        self.tally.cases += 1
        for number, world in enumerate(self.worlds):
            await world.open()
            for write in self.case.writes(number):
                if number == 0 or write.name not in without:
                    await world.write(write)
        self.tokens = [await world.token(self.case.caller, lifetime) for world in self.worlds]
        self.feeds = [await world.token(FEED) for world in self.worlds]

    async def close(self) -> None:
        for world in self.worlds:
            await world.close()

    def save(self) -> None:
        self._saved = [world.saved() for world in self.worlds]

    def restore(self) -> None:
        self._said.clear()
        self._exports.clear()
        for world, saved in zip(self.worlds, self._saved, strict=True):
            world.restore(saved)

    def move(self, by: int) -> None:
        """Advance both clocks."""
        for world in self.worlds:
            world.clock.now += by

    async def both(self, ask: Ask) -> Answer:
        """Send the request to both servers.  Raises Leak if the responses differ in any byte or contain a hidden word."""
        answers = [await world.ask(ask, token) for world, token in zip(self.worlds, self.tokens, strict=True)]
        self.tally.requests += 1
        self.tally.by_kind[ask.kind] = self.tally.by_kind.get(ask.kind, 0) + 1
        self.tally.statuses[answers[0].status] = self.tally.statuses.get(answers[0].status, 0) + 1
        if max(answer.status for answer in answers) >= 500:
            raise AssertionError(f"case {self.case.seed}, {self.case.caller.name}: the server failed at {ask}")
        if answers[0].bytes() != answers[1].bytes():
            raise Leak(self.case, ask, "The worlds answer differently.", answers)
        self._said |= set(_CANARY.findall(ask.sent().encode()))
        if ask.kind == "control" or (self._thorough and ask.kind not in ("elements", "elements-page")):
            self._require_valid(ask, answers[0])
        told = {word for word in _CANARY.findall(answers[0].bytes()) if word in self._canaries} - self._said
        if told:
            raise Leak(self.case, ask, f"The answer holds hidden words: {sorted(told)}", answers[:1])
        return answers[0]

    def _require_valid(self, ask: Ask, answer: Answer) -> None:
        """Check that every resource in an answer is valid R4: what was cut from it left nothing that R4 requires out."""
        for resource in resources_in(answer):
            issues = validate.check(resource["resourceType"], resource)
            if issues:
                raise Leak(self.case, ask, f"Not valid R4: {[(issue.text, issue.expression) for issue in issues]}", (answer,))

    async def paged(self, ask: Ask) -> list[Answer]:
        """Send the request and follow every ``next`` link."""
        answers = [await self.both(ask)]
        if answers[0].status == 202:
            await self._exported(answers[0])
        while (link := answers[-1].link("next")) is not None:
            path, _, query = link.removeprefix(BASE).lstrip("/").partition("?")
            answers.append(await self.both(Ask(f"{ask.kind}-page", "GET", path, query, tuple(h for h in ask.headers if h[0] == "prefer"))))
            if len(answers) > self.most_pages:
                raise Leak(self.case, ask, "The pages have no end.")
        _require_whole(self.case, ask, answers)
        if (back := answers[-1].link("previous")) is not None:
            path, _, query = back.removeprefix(BASE).lstrip("/").partition("?")
            await self.both(Ask(f"{ask.kind}-page", "GET", path, query, tuple(h for h in ask.headers if h[0] == "prefer")))
        return answers

    async def _exported(self, accepted: Answer) -> None:
        self._exports.append(accepted.location())
        await self.fetched(self._exports[-1])

    async def fetched(self, location: str) -> None:
        """Poll the status of an export or import and download all its files, or fetch what was asked to be answered later."""
        state = await self.both(Ask.get("export-status", location))
        while state.status == 202:
            state = await self.both(Ask.get("export-status", location))
        if state.status == 200:
            manifest = json.loads(state.body)
            files = [file for part in ("output", "deleted", "error") for file in manifest.get(part, ()) if "url" in file]
            for output in files:
                await self.both(Ask.get("export-file", output["url"].removeprefix(BASE + "/"), accept="application/fhir+ndjson"))

    async def run(self, capability: Capability, asks: int, seed: int = 0) -> None:
        """Run the generic test of a case.

        It sends the steady requests, then ``asks`` random requests with hidden writes in between, then the steady requests again.
        """
        asker = self.asker(self.case, capability, seed)
        for ask in asker.steady():
            await self.paged(ask)
        drawn = asker.draw(asks)
        turns = {asks * (number + 1) // (len(self.case.late) + 1): secret for number, secret in enumerate(self.case.late)}
        for number, ask in enumerate(drawn):
            self.move(SECOND // 50)
            if number in turns:
                await self._happen(turns[number])
            await self.paged(ask)
        for location in self._exports:
            await self.fetched(location)  # again, after the hidden writes
        for ask in asker.steady():
            await self.both(ask)

    async def _happen(self, secret: Secret) -> None:
        """Apply hidden writes during the requests, different ones on each server."""
        for world, writes in zip(self.worlds, secret.writes, strict=True):
            for number, write in enumerate(writes):
                await world.write(type(write)(world.clock.now - SECOND + number, write.type, write.id, write.resource))

    async def control(self) -> None:
        """Check that visible rows can be read and searched, and that hidden rows can be read only by the institution's feed."""
        for name, write in self.case.standing().items():
            answer = await self.both(Ask.get("control", name))
            assert answer.status == 200, f"case {self.case.seed}, {self.case.caller.name}: {name} is not seen: {write.resource}"
            found = await self.both(Ask.get("control", write.type, [("_id", write.id)]))
            assert found.bundle()["total"] == 1, name
        shown = {write.name: write for write in self.case.shown}
        for number, world in enumerate(self.worlds):
            last = {write.name: write for secret in self.case.secrets for write in secret.writes[number]}
            for name, write in last.items():
                answer = await world.ask(Ask.get("control", name), self.feeds[number])
                # What was hidden may be the beginning of a row that is seen later.
                newest = shown.get(name, write)
                assert answer.status == (200 if newest.resource is not None else 410), f"{name} in world {number + 1}: {answer}"
                if name not in shown and name not in FACT_NAMES:
                    hidden = await world.ask(Ask.get("control", name), self.tokens[number])
                    assert hidden.status == (404 if hidden.status != 403 or "?" not in self.case.caller.scope else 403), (
                        f"case {self.case.seed}, {self.case.caller.name}: {name} is seen: {write.resource}"
                    )


def resources_in(answer: Answer) -> list[dict[str, Any]]:
    """Return the resources of an answer: of a Bundle, a file of an export, or the one in the body."""
    if answer.status != 200 or answer.body[:1] != b"{":
        return []
    lines = [jsontext.parse(line) for line in answer.body.splitlines()]
    bundled = [entry.get("resource") for bundle in lines if bundle.get("resourceType") == "Bundle" for entry in bundle.get("entry", ())]
    single = [line for line in lines if line.get("resourceType") not in (None, "Bundle", "OperationOutcome")]
    return [resource for resource in (*single, *bundled) if resource and resource["resourceType"] not in ("Bundle", "OperationOutcome")]


def _canaries(case: Case) -> frozenset[bytes]:
    """Return the words that occur only in hidden data."""
    return frozenset(_CANARY.findall(repr(case.hidden()).encode())) - frozenset(_CANARY.findall(repr(case.shown).encode()))


def _require_whole(case: Case, ask: Ask, answers: list[Answer]) -> None:
    """Check the pages of a search: all but the last are full, no row occurs twice, and the row count equals the total."""
    bundles = [answer.bundle() for answer in answers]
    if not bundles[0] or bundles[0]["type"] != "searchset" or ask.kind.endswith("-page"):
        return
    pages = [[entry["fullUrl"] for entry in bundle.get("entry", ()) if entry["search"]["mode"] == "match"] for bundle in bundles]
    rows = [row for page in pages for row in page]
    if len(rows) != len(set(rows)):
        raise Leak(case, ask, "A row is on two pages.", answers)
    if len({len(page) for page in pages[:-1]}) > 1 or (len(pages) > 1 and not pages[-1] and ask.kind != "everything"):
        raise Leak(case, ask, f"Pages are not full: {[len(page) for page in pages]}.", answers)
    total = bundles[0].get("total")
    if total is not None and "_summary=count" not in ask.sent() and "_count=0" not in ask.sent() and total != len(rows):
        raise Leak(case, ask, f"The total is {total}, the pages hold {len(rows)}.", answers)


async def found(
    case: Case,
    capability: Capability,
    asks: int,
    urls: tuple[str, str] = ("memory:", "memory:"),
    tally: Tally | None = None,
    thorough: bool = False,
) -> Leak | None:
    """Return the first leak that the control checks or the generic run find in a case, or None."""
    twins = Twins(case, urls, tally, thorough)
    await twins.open()
    try:
        await twins.control()
        await twins.run(capability, asks)
    except Leak as leak:
        return leak
    finally:
        await twins.close()
    return None


async def shrunk(leak: Leak) -> Leak:
    """Remove the secrets that the leak does not need.  Only the request that showed the leak is sent again."""
    smallest = leak
    for secret in (*leak.case.secrets, *leak.case.late):
        smaller = await _alone(smallest.case.without(secret), leak.ask)
        smallest = smaller or smallest
    return smallest


async def _alone(case: Case, ask: Ask) -> Leak | None:
    twins = Twins(case)
    await twins.open()
    try:
        await twins.paged(ask)
    except Leak as leak:
        return leak
    finally:
        await twins.close()
    return None


async def capability() -> Capability:
    """Return the CapabilityStatement of a server."""
    world = World()
    await world.open()
    world.serve_documents()
    answer = await world.ask(Ask.get("metadata", "metadata"), "")
    await world.close()
    return Capability(json.loads(answer.body))


def scaled(number: int) -> int:
    """Multiply a number of cases by the environment variable TWINS, for longer runs."""
    return int(number * float(os.environ.get("TWINS", "1")))


def report(tally: Tally) -> dict[str, Any]:
    return {"cases": tally.cases, "requests": tally.requests, "kinds": tally.by_kind, "statuses": tally.statuses}
