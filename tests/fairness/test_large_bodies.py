"""Large bodies are parsed in another process, with the same result, within a limit of CPU time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from fhir_server import budget
from fhir_server.budget import Budget, BudgetLimits
from fhir_server.errors import Problem
from fhir_server.interactions import transaction
from fhir_server.resources.bundle_links import BundleLinks
from fhir_server.resources.server_base import server_base
from fhir_server.writing import parser
from fhir_server.writing.draft import parse_draft
from fhir_server.writing.entry_resources import linked_resource
from fhir_server.writing.parser import Parser, is_large
from tests.served import Served

T = TypeVar("T")
BASE = "http://one.example/fhir"
DIV = '{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">%s</div>"}'


def questionnaire(items: int) -> bytes:
    listed = b",".join(b'{"linkId":"%d","type":"string"}' % number for number in range(items))
    return b'{"resourceType":"Questionnaire","status":"active","item":[%s]}' % listed


def observation(**members: str) -> bytes:
    rest = "".join(f',"{name}":{text}' for name, text in members.items())
    return b'{ "resourceType":"Observation","status":"final","code":{"text":"x"}%s}' % rest.encode()


def many_notes(count: int, size: int) -> str:
    return "[" + ",".join('{"text":"%s"}' % ("n" * size) for _ in range(count)) + "]"


GOOD = {
    "many objects": questionnaire(400),
    "long text": observation(note=many_notes(1, 200_000)),
    "many long texts": observation(note=many_notes(40, 9000)),
    "narrative": observation(text=DIV % ("<b>x</b>" * 20_000)),
    "digits": observation(valueQuantity='{"value":1.50}', note=many_notes(300, 400)),
    "exponents": observation(valueQuantity='{"value":1E3}', note=many_notes(300, 400)),
    "escapes": observation(valueString='"\\u0041\\/\\u00e9"', note=many_notes(300, 400)),
    "own links": observation(subject=f'{{"reference":"{BASE}/Patient/p"}}', note=many_notes(300, 400)),
    "nested": b'{"resourceType":"Basic","code":{"text":"x"},"extension":[%s]}'
    % b",".join([b'{"url":"http://x.example","extension":[%s]}' % b",".join([b'{"url":"http://x.example","valueString":"v"}'] * 2000)] * 3),
}  # fmt: skip
BAD = {
    "not JSON": b"[" + b"{}," * 400,
    "repeated name": observation(status='"final"', note=many_notes(300, 1)),
    "wrong status": observation(issued='"no"', note=many_notes(300, 1)),
    "wrong type": questionnaire(400).replace(b"Questionnaire", b"Nothing"),
    "unresolved": observation(subject='{"reference":"Patient?x=y"}', note=many_notes(300, 1)),
    "too deep": observation(extension='[{"url":"x","extension":' * 300 + "1" + "}]" * 300),
}


def with_parser(job: Callable[[Parser], Awaitable[T]], max_bytes: int = 10_000_000) -> T:
    async def main() -> T:
        one = Parser(max_bytes)
        try:
            return await job(one)
        finally:
            await one.close()

    return asyncio.run(main())


def test_a_large_resource_is_the_same_draft_as_in_this_process() -> None:
    async def compare(one: Parser) -> None:
        for name, text in GOOD.items():
            assert is_large(text), name
            here, there = parse_draft(text, base=BASE), await one.draft(text, base=BASE)
            assert (here.type, here.parts, here.references) == (there.type, there.parts, there.references), name
            assert repr(here.value) == repr(there.value), name  # also tells 1.50 from 1.5

    with_parser(compare)


def test_a_large_bad_resource_is_refused_as_in_this_process() -> None:
    async def compare(one: Parser) -> None:
        for name, text in BAD.items():
            assert is_large(text), name
            with pytest.raises(Problem) as here:
                parse_draft(text, "Observation" if name == "wrong type" else None)
            with pytest.raises(Problem) as there:
                await one.draft(text, "Observation" if name == "wrong type" else None)
            assert (here.value.kind, here.value.issues) == (there.value.kind, there.value.issues), name

    with_parser(compare)


def test_the_event_loop_goes_on_while_a_body_is_parsed() -> None:
    """Counts the turns of another task, with a process that is stopped until the other task has had a hundred."""

    async def count(one: Parser) -> int:
        await one.draft(questionnaire(300))
        (process,) = one._idle
        os.kill(process.pid, signal.SIGSTOP)
        task = asyncio.create_task(one.draft(questionnaire(400)))
        turns = 0
        while turns < 100:
            turns += 1
            await asyncio.sleep(0)
        assert not task.done()
        os.kill(process.pid, signal.SIGCONT)
        assert (await task).type == "Questionnaire"
        return turns

    assert with_parser(count) == 100


def test_a_body_that_takes_too_long_to_validate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_SECONDS", 0.02)

    async def job(one: Parser) -> None:
        with pytest.raises(Problem) as refused:
            await one.draft(questionnaire(20_000))
        assert refused.value.kind == "too_costly"
        assert len(one._idle) == 1  # the process goes on with other bodies
        monkeypatch.setattr(parser, "_SECONDS", 100.0)
        assert (await one.draft(questionnaire(300))).type == "Questionnaire"

    with_parser(job)


def test_validation_is_charged_to_the_request() -> None:
    async def job(one: Parser) -> None:
        async def work() -> None:
            await one.draft(questionnaire(300))
            spending = budget.current()
            assert spending is not None
            charged = 1000 - spending.remaining()
            assert charged > 0.001

        await budget.metered(work(), Budget(BudgetLimits(seconds=1000)))

    with_parser(job)


def test_a_process_that_dies_is_replaced() -> None:
    async def job(one: Parser) -> None:
        await one.draft(questionnaire(300))
        (process,) = one._idle
        process.kill()
        await process.wait()
        with pytest.raises(Problem) as refused:
            await one.draft(questionnaire(300))
        assert refused.value.kind == "busy"
        assert (await one.draft(questionnaire(300))).type == "Questionnaire"

    with_parser(job)


def test_a_request_that_is_given_up_leaves_no_answer_for_the_next() -> None:
    async def job(one: Parser) -> None:
        task = asyncio.create_task(one.draft(questionnaire(5000)))
        while not one._turns.locked() and not task.done() and one._turns._value == 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await one.draft(observation(note=many_notes(300, 1)))).type == "Observation"

    with_parser(job)


def test_a_resource_over_the_limit_is_refused_in_a_bundle_too() -> None:
    server = Served(seeds=False, max_resource_bytes=3000)
    for kind in ("batch", "transaction"):
        entries = [{"request": {"method": "POST", "url": "Observation"}, "resource": json.loads(observation(note=many_notes(1, 4000)))}]
        answer = server.request(server.token(), "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries})
        status = int(answer.json["entry"][0]["response"]["status"]) if kind == "batch" else answer.status
        assert status == 413
    server.close()


def test_large_bundles_are_processed_as_small_ones() -> None:
    server = Served(seeds=False)
    token = server.token()
    for kind, type in (("batch", "batch-response"), ("transaction", "transaction-response")):
        resource: dict[str, Any] = json.loads(observation())
        entries = [{"request": {"method": "POST", "url": "Observation"}, "resource": resource} for _ in range(300)]
        body = json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()
        assert is_large(body)
        answer = server.request(token, "POST", "", body=body).json
        assert answer["type"] == type and {entry["response"]["status"] for entry in answer["entry"]} == {"201"}
    for body in (
        b'{"resourceType":"Bundle","type":"batch","entry":{"a":[%s]}}' % b",".join([b"{}"] * 300),
        b"[%s]" % b",".join([b"{}"] * 300),
    ):
        assert is_large(body) and server.request(token, "POST", "", body=body).status == 400
    answer = server.request(token, "POST", "Questionnaire", body=questionnaire(400))
    assert answer.status == 201 and len(answer.json["item"]) == 400
    server.close()


def test_a_transaction_whose_references_take_too_long_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its entries is read.  A batch is no transaction: its first entries are stored."""
    server = Served(seeds=False)
    token, read, right = server.token(), [], Parser.draft

    async def noted(self: Parser, *args: Any, **named: Any) -> Any:
        read.append(1)
        return await right(self, *args, **named)

    monkeypatch.setattr(Parser, "draft", noted)
    names = [f"urn:uuid:00000000-0000-0000-0000-{number:012d}" for number in range(4)]
    resource = json.loads(observation(hasMember=json.dumps([{"reference": name} for name in names])))
    entries = [{"fullUrl": name, "request": {"method": "POST", "url": "Observation"}, "resource": resource} for name in names]

    def send(kind: str) -> Any:
        read.clear()
        return server.request(token, "POST", "", body={"resourceType": "Bundle", "type": kind, "entry": entries})

    monkeypatch.setattr(transaction, "_REFERENCES_PER_SECOND", 0.001)  # of the 16
    refused = send("transaction")
    assert (refused.status, refused.json["issue"][0]["code"], read) == (503, "too-costly", [])
    for entry in entries:
        entry.pop("fullUrl")
    assert send("batch").status == 200
    monkeypatch.setattr(transaction, "_REFERENCES_PER_SECOND", 1000)  # the control
    for entry, name in zip(entries, names, strict=True):
        entry["fullUrl"] = name
    assert send("transaction").status == 200 and len(read) == 4
    server.close()


def test_links_of_a_large_entry_are_those_of_a_small_one() -> None:
    """A large one is not rewritten in the event loop: its value would have to be made there."""
    links = BundleLinks(server_base(BASE))
    links.add("urn:uuid:00000000-0000-0000-0000-000000000001", {"resourceType": "Patient"}, "Patient/new", keeps_id=False)
    links.add("http://other.example/Patient/7", {"resourceType": "Patient", "id": "7"}, None, keeps_id=False)
    url = "urn:uuid:00000000-0000-0000-0000-000000000002"
    many = many_notes(300, 400)
    resources = {
        "reference": observation(subject='{"reference":"urn:uuid:00000000-0000-0000-0000-000000000001"}', note=many),
        "escaped": observation(subject='{"reference":"urn:uuid:00000000-0000-0000-0000-00000000000\\u0031"}', note=many),
        "uri": observation(extension='[{"url":"http://x.example","valueUri":"urn:uuid:00000000-0000-0000-0000-000000000001"}]', note=many),
        "refused": observation(subject='{"reference":"http://other.example/Patient/7"}', note=many),
    }

    def outcome(job: Callable[[], bytes]) -> object:
        try:
            return job()
        except Problem as problem:
            return problem.kind, str(problem)

    async def compare(one: Parser) -> None:
        for name, resource in resources.items():
            text = b'{"fullUrl":"%s","resource":%s}' % (url.encode(), resource)
            assert is_large(text)
            here = outcome(lambda text=text: linked_resource(text, url, links))  # type: ignore[misc]
            try:
                there: object = await one.linked(text, url, links)
            except Problem as problem:
                there = problem.kind, str(problem)
            assert here == there, name
            assert b"Patient/new" in here if isinstance(here, bytes) else name == "refused", name
        assert len(one._idle) == 1  # a process did it

    with_parser(compare)
