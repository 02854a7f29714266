"""A large Bundle is parsed entry by entry, with the result of parsing it at once."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server import jsontext
from fhir_server.writing import parse_worker
from fhir_server.writing.parse_worker import Task

ENTRY = b'{"fullUrl":"urn:uuid:0b4bfa6a-2b4a-4a3f-8b1c-6f1f0a3c3c3c","request":{"method":"POST","url":"Basic"},"resource":%s}'
RESOURCE = b'{"resourceType":"Basic","code":{"text":"x"}}'
BUNDLE = b'{"resourceType":"Bundle","type":"batch","entry":[%s]}'
READ = b'{"request":{"method":"GET","url":"Patient"}}'


def deep(levels: int) -> bytes:
    return b'{"resourceType":"Basic","a":' + b"[" * levels + b"]" * levels + b"}"


def bundle(resource: bytes) -> bytes:
    return BUNDLE % (ENTRY % resource)


TEXTS = {
    "plain": bundle(RESOURCE),
    "digits": bundle(b'{"resourceType":"Basic","a":1.50,"b":1E3}'),
    "space": b' { "resourceType" : "Bundle", "type": "batch" , "entry" : [ %s , %s ] } ' % (ENTRY % RESOURCE, READ),
    "escaped content": bundle(b'{"resourceType":"Basic","a":"\\u0041\\/"}'),
    "escaped name": bundle(RESOURCE).replace(b"entry", b"\\u0065ntry"),
    "repeated member": b'{"type":"batch",' + (BUNDLE % b"")[1:],
    "repeated entry": b'{"entry":[],' + bundle(RESOURCE)[1:],
    "repeated in a resource": bundle(b'{"resourceType":"Basic","a":1,"a":2}'),
    "repeated in an entry": bundle(RESOURCE).replace(b'{"fullUrl"', b'{"fullUrl":"urn:x","fullUrl"'),
    "half a pair": bundle(b'{"resourceType":"Basic","a":"\\ud800"}'),
    "not UTF-8": bundle(b'{"resourceType":"Basic","a":"\xff"}'),
    "no JSON": bundle(b'{"resourceType":"Basic","a":01}'),
    "NaN": bundle(b'{"resourceType":"Basic","a":NaN}'),
    "ends early": bundle(RESOURCE)[:-1],
    "more behind": bundle(RESOURCE) + b"}",
    "trailing comma": BUNDLE % (ENTRY % RESOURCE + b","),
    "entry is an object": b'{"resourceType":"Bundle","type":"batch","entry":{"a":1}}',
    "entry is null": b'{"resourceType":"Bundle","type":"batch","entry":null}',
    "no entry": b'{"resourceType":"Bundle","type":"batch"}',
    "entries of numbers": BUNDLE % b"1,2",
    "resource is null": bundle(b"null"),
    "resource is an array": bundle(b"[]"),
    "empty": BUNDLE % b"",
    "an array": b"[1]",
    "another type": RESOURCE,
    "no method": BUNDLE % b'{"request":{"url":"Basic"}}',
    "deep enough": bundle(deep(196)),
    "too deep": bundle(deep(197)),
    "deep member": b'{"a":' + b"[" * 199 + b"]" * 199 + b',"entry":[],"resourceType":"Bundle"}',
    "too deep member": b'{"a":' + b"[" * 200 + b"]" * 200 + b',"entry":[],"resourceType":"Bundle"}',
}


def result(text: bytes) -> tuple[Any, ...]:
    parsed, entries = parse_worker.run(Task("entries", len(text), 100.0), text)
    assert parsed.sizes == [len(entry) for entry in entries]
    compacted = {name: jsontext.compact(part) for name, part in parsed.parts.items()}
    issues = [(issue.code, issue.text, issue.expression) for issue in parsed.issues]
    return parsed.problem, parsed.message, issues, compacted, [jsontext.compact(entry) for entry in entries]


@pytest.mark.parametrize("name", TEXTS)
def test_a_bundle_in_parts_is_the_bundle_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts = result(TEXTS[name])
    monkeypatch.setattr(parse_worker, "_entries_in_parts", lambda text: None)
    assert in_parts == result(TEXTS[name])


def test_the_texts_are_refused_and_taken_in_both_ways() -> None:
    """The control of the test above: that its texts reach what they are to compare."""
    assert parse_worker._entries_in_parts(TEXTS["deep enough"]) and result(TEXTS["deep enough"])[0] is None
    for name in ("too deep", "repeated member", "escaped name", "half a pair", "entry is null"):
        assert parse_worker._entries_in_parts(TEXTS[name]) is None, name
    assert "deeper" in result(TEXTS["too deep"])[1] and "repeated" in result(TEXTS["repeated in a resource"])[1]


def test_one_entry_is_a_value_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records the largest text of which the value is made."""
    sizes = []
    known = jsontext.parse

    def parse(text: bytes, **named: Any) -> Any:
        sizes.append(len(text))
        return known(text, **named)

    monkeypatch.setattr(jsontext, "parse", parse)
    text = BUNDLE % b",".join([READ] * 500)
    assert len(parse_worker.run(Task("entries", len(text), 100.0), text)[1]) == 500
    assert max(sizes) == len(READ)
