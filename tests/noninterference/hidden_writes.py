"""Sends the same requests before and after each write that a caller does not see, and compares the answers.

One write may change nothing for callers who do not see the row, neither before nor after: labels and release dates that a row
has lent stay with the rows that inherited them.  When a write does make a row visible, no other row may appear with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fhir_server.maintenance.relabel import relabel_store
from fhir_server.smart.accounts import users
from fhir_server.smart.accounts.users import User
from tests.noninterference.label_graphs import Graph, HiddenWrite, Node
from tests.noninterference.oracle import BORN, FACTS
from tests.noninterference.paired_server import BASE, MINUTE, SECOND, Answer, Ask, Caller, World, Write
from tests.noninterference.resource_factory import Json, grant, ref

_WORD = re.compile(rb"zq[0-9a-f]{9}")
_START = FACTS[-1].at + MINUTE
_KINDS = ("teen", "child", "adult")


class GrownError(AssertionError):
    """A hidden write changed what a caller sees."""


@dataclass
class Counts:
    """What a run has compared.  ``hidden`` and ``shown`` are rows of the first state; ``kinds`` counts the writes by kind."""

    writes: int = 0
    answers: int = 0
    hidden: int = 0
    shown: int = 0
    unseen: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


class Record:
    """The record of one made-up patient on a server, with its callers and its graph."""

    def __init__(self, world: World, seed: int, label: str) -> None:
        self.world = world
        self.seed = seed
        self.kind = _KINDS[seed % len(_KINDS)]
        self.patient = f"{self.kind}-{label}"
        self.graph = Graph(seed, self.patient, label)
        self.at = _START + seed % 1000 * SECOND
        self.tokens: dict[str, str] = {}

    async def open(self) -> None:
        """Store the patient, the accounts, the grants and the graph."""
        names = [f"RelatedPerson/{kind}-of-{self.patient}" for kind in ("parent", "proxy")]
        rows: list[Json] = [{"resourceType": "Patient", "id": self.patient, "birthDate": BORN[self.kind]}]
        rows += [{"resourceType": "RelatedPerson", "id": name.partition("/")[2], "patient": ref("Patient", self.patient)} for name in names]
        if self.kind == "adult":
            rows.append({"id": f"grant-{self.patient}", **grant(self.patient, names[1], "proxy-adult", "2020-01-01")})
        else:
            rows.append({"id": f"grant-{self.patient}", **grant(self.patient, names[0], "proxy-child", "2020-01-01")})
        for row in rows:
            await self._write(row["resourceType"], row["id"], row)
        own = self.patient if self.kind == "adult" else None
        related = tuple(name.partition("/")[2] for name in names)
        await users.save(self.world.parts.store, User(f"kin-{self.patient}", "Kin", "patient", "", f"k{self.patient}", None, None, related))
        await users.save(self.world.parts.store, User(f"own-{self.patient}", "Own", "patient", "", f"o{self.patient}", own, None, ()))
        for caller in self._callers():
            self.tokens[caller.name] = await self.world.token(caller)
        for node in self.graph.nodes:
            await self._write(node.type, node.id, node.body(sensitive=True))

    def _callers(self) -> Iterable[Caller]:
        # The token of a caller is drawn from the caller's name.
        yield Caller(f"kin of {self.patient}", "", self.patient, "", f"kin-{self.patient}")
        if self.kind == "adult":
            yield Caller(f"self of {self.patient}", "", self.patient, "", f"own-{self.patient}")
        yield Caller(f"backend for {self.patient}", "BE", "", client="limited", scope="system/*.cruds")
        if self.seed % 3 == 0:
            yield Caller(f"billing for {self.patient}", "BO", "", "", "billing", scope="user/*.cruds")

    async def _write(self, type: str, id: str, resource: Json | None) -> None:
        self.at += SECOND
        await self.world.write(Write(self.at, type, id, resource))

    def asks(self) -> list[Ask]:
        """Return the requests of one state: every row by id, its history, listings, counts, searches by reference, $everything."""
        nodes = self.graph.nodes
        asks = [Ask.get("read", node.name) for node in nodes]
        asks += [Ask.get("history", f"{node.name}/_history") for node in nodes]
        asks += [Ask.get("vread", f"{node.name}/_history/1") for node in nodes[-3:]]
        asks += [Ask.get("conditional-read", node.name, if_none_match='W/"1"') for node in nodes[-3:]]
        types = sorted({node.type for node in nodes if node.references and node.type != "Composition"})
        for type in types:
            if any(node.type == type and node.type not in ("HealthcareService", "PractitionerRole", "Location") for node in nodes):
                asks.append(Ask.get("search", type, [("patient", self.patient), ("_count", "50")]))
                asks.append(Ask.get("count", type, [("patient", self.patient), ("_summary", "count")]))
        for node in nodes:
            if node.type == "Observation" and str(node.references.get("encounter", "")).startswith("Encounter/"):
                asks.append(Ask.get("by-reference", "Observation", [("encounter", node.references["encounter"]), ("_summary", "count")]))
        asks.append(Ask.get("everything", f"Patient/{self.patient}/$everything", [("_count", "200")]))
        return asks

    async def answers(self, token: str) -> dict[str, Answer]:
        return {f"{ask.kind} {ask}": await self.world.ask(ask, token) for ask in self.asks()}

    async def run(self, number: int, counts: Counts) -> dict[str, dict[str, Answer]]:
        """Apply ``number`` random writes and return the last answers to each caller.

        Raises GrownError when a caller's answers show a write that the caller does not see.
        """
        before = {name: await self.answers(token) for name, token in self.tokens.items()}
        for answers in before.values():
            seen = [_is_seen(answers, node) for node in self.graph.nodes]
            counts.shown += sum(seen)
            counts.hidden += len(seen) - sum(seen)
        for write in self.graph.writes(number):
            await self._write(write.node.type, write.node.id, write.resource)
            counts.writes += 1
            counts.kinds[write.kind] = counts.kinds.get(write.kind, 0) + 1
            for name, token in self.tokens.items():
                after = await self.answers(token)
                counts.answers += len(after)
                counts.unseen += self._compare(name, write, before[name], after)
                before[name] = after
        return before

    async def require_settled(self, final: dict[str, dict[str, Answer]]) -> None:
        """Raise GrownError if answers differ from the ``final`` ones of :meth:`run`: all rows have been labeled again meanwhile."""
        for name, token in self.tokens.items():
            for ask, answer in (await self.answers(token)).items():
                if answer.bytes() != final[name][ask].bytes():
                    shown = f"--- before {final[name][ask].bytes()!r}\n--- after  {answer.bytes()!r}"
                    raise GrownError(f"graph {self.seed}, {name}: labels were not up to date for {ask}\n{shown}")

    def _compare(self, caller: str, write: HiddenWrite, before: dict[str, Answer], after: dict[str, Answer]) -> bool:
        """Compare the answers; whether the write was one that the caller does not see."""
        if write.releases:
            return False
        was_seen, is_seen = _is_seen(before, write.node), _is_seen(after, write.node)
        grown = [
            node.name for node in self.graph.nodes
            if node is not write.node and not _is_seen(before, node) and _is_seen(after, node)
        ]  # fmt: skip
        if grown and not _may_show_others(write, was_seen, is_seen):
            raise GrownError(self._report(caller, write, f"{grown} appeared.", before, after))
        if was_seen or is_seen:
            return False
        new = _words(after) - _words(before)
        if new:
            raise GrownError(self._report(caller, write, f"The answers hold new words: {sorted(new)}.", before, after))
        if write.quiet:
            changed = next((ask for ask in before if before[ask].bytes() != after[ask].bytes()), None)
            if changed is not None:
                raise GrownError(self._report(caller, write, f"Another answer to {changed}.", before, after))
        return True

    def _report(self, caller: str, write: HiddenWrite, what: str, before: dict[str, Answer], after: dict[str, Answer]) -> str:
        rows = "\n".join(f"  {node.name}: {node.body(sensitive=True)}" for node in self.graph.nodes)
        changed = [ask for ask in before if before[ask].bytes() != after[ask].bytes()]
        shown = "\n".join(f"{ask}\n--- before {before[ask].bytes()!r}\n--- after  {after[ask].bytes()!r}" for ask in changed[:3])
        return f"graph {self.seed}, {caller}, {write}\n{what}\n{shown}\nrows:\n{rows}"


def _may_show_others(write: HiddenWrite, was_seen: bool, is_seen: bool) -> bool:
    """Whether other rows may appear: a row that the caller knew comes back, or a row is released for which others waited."""
    return (was_seen and write.kind.startswith("re-create")) or (is_seen and not write.node.lends)


def _is_seen(answers: dict[str, Answer], node: Node) -> bool:
    return answers[f"read {Ask.get('read', node.name)}"].status in (200, 410)


def _words(answers: dict[str, Answer]) -> set[bytes]:
    return {word for answer in answers.values() for word in _WORD.findall(answer.bytes())}


async def compared(url: str, seeds: Iterable[int], writes: int = 5, counts: Counts | None = None) -> Counts:
    """Run the graphs of these seeds on one store, and label all rows again at the end, which must change no answer.

    Raises GrownError at the first difference that a caller can tell.
    """
    counts = counts or Counts()
    world = World(url, 1)
    finals: list[tuple[Record, dict[str, dict[str, Answer]]]] = []
    await world.open()
    try:
        for fact in FACTS:
            await world.write(fact)
        for seed in seeds:
            record = Record(world, seed, f"g{seed}")
            await record.open()
            finals.append((record, await record.run(writes, counts)))
        await relabel_store(world.parts.store, world.parts.labeler, BASE, world.clock.now)
        for record, final in finals:
            await record.require_settled(final)
    finally:
        await world.close()
    return counts
