"""JSON Patch (RFC 6902) of JSON text."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fhir_server.errors import Problem
from fhir_server.writing import json_patch

LIMIT = 10_000


def patched(text: bytes, *operations: dict[str, Any]) -> bytes:
    return json_patch.apply(json_patch.parse(json.dumps(operations).encode()), text, LIMIT)


def op(op: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **more}


# The examples of RFC 6902, appendix A, that R4's JSON can have.
@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"foo": "bar"}, [op("add", "/baz", value="qux")], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar", "baz"]}, [op("add", "/foo/1", value="qux")], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [op("remove", "/baz")], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [op("remove", "/foo/1")], {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [op("replace", "/baz", value="boo")], {"baz": "boo", "foo": "bar"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [op("move", "/qux/thud", **{"from": "/foo/waldo"})],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        ({"foo": ["all", "grass", "cows", "eat"]}, [op("move", "/foo/3", **{"from": "/foo/1"})], {"foo": ["all", "cows", "eat", "grass"]}),
        ({"baz": "qux", "foo": ["a", 2, "c"]}, [op("test", "/baz", value="qux"), op("test", "/foo/1", value=2)], None),
        ({"foo": "bar"}, [op("add", "/child", value={"grandchild": {}})], {"foo": "bar", "child": {"grandchild": {}}}),
        ({"foo": "bar"}, [op("add", "/baz", value="qux", xyz=123)], {"foo": "bar", "baz": "qux"}),
        ({"/": 9, "~1": 10}, [op("test", "/~01", value=10), op("test", "/~1", value=9)], None),
        ({"foo": ["bar"]}, [op("add", "/foo/-", value=["abc", "def"])], {"foo": ["bar", ["abc", "def"]]}),
        ({"a": {"b": 1}}, [op("copy", "/c", **{"from": "/a"}), op("replace", "/c/b", value=2)], {"a": {"b": 1}, "c": {"b": 2}}),
        ({"a": 1}, [op("move", "/a", **{"from": "/a"})], None),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"a": ["x"], "b": 1}, [op("remove", "/a/0")], {"b": 1}),
        ({"a": {"x": 1}, "b": 1}, [op("remove", "/a/x"), op("add", "/a/y", value=2)], {"a": {"y": 2}, "b": 1}),
        ({"b": 1}, [op("add", "/a/-", value=1), op("add", "/a/0", value=0)], {"b": 1, "a": [0, 1]}),
    ],
)
def test_operations_do_what_the_rfc_says(document: Any, operations: list[Any], result: Any) -> None:
    assert json.loads(patched(json.dumps(document).encode(), *operations)) == (document if result is None else result)


@pytest.mark.parametrize(
    "operation",
    [
        op("add", "/x/y", value=1), op("add", "/foo/9", value=1), op("add", "/foo/01", value=1), op("add", "/foo/a", value=1),
        op("add", "/n/x", value=1), op("remove", "/x"), op("remove", "/foo/-"), op("remove", "/foo/2"), op("remove", ""),
        op("replace", "/x", value=1), op("replace", "/foo/-", value=1), op("move", "/x", **{"from": "/y"}),
        op("move", "/foo/0", **{"from": "/foo"}), op("copy", "/x", **{"from": "/y"}), op("test", "/x", value=None),
        op("test", "/n", value=True), op("test", "/n", value="1"), op("test", "/foo", value=["bar"]), op("test", "/foo/-", value=1),
        op("test", "/foo/+1", value="baz"), op("move", "/x", **{"from": "/x"}),
    ],
)  # fmt: skip
def test_operation_that_cannot_be_done_is_named(operation: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        patched(b'{"foo":["bar","baz"],"n":1}', op("test", "/n", value=1), operation)
    assert refused.value.kind == "unprocessable" and str(refused.value).startswith(f"Operation 1 ({operation['op']})")


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[1]", b"[{}]", b'[{"op":"add","path":"/x"}]', b'[{"op":"spam","path":"/x"}]', b'[{"op":"add","value":1}]', b"[", b"",
     b'[{"op":"add","path":"x","value":1}]', b'[{"op":"add","path":"/~2","value":1}]', b'[{"op":"copy","path":"/x"}]',
     b'[{"op":"add","op":"remove","path":"/x","value":1}]', b"[%s]" % b",".join([b'{"op":"remove","path":"/x"}'] * 1001)],
)  # fmt: skip
def test_malformed_patch_is_refused(text: bytes) -> None:
    with pytest.raises(Problem) as refused:
        json_patch.parse(text)
    assert refused.value.kind == "invalid"


def test_digits_order_and_unknown_text_stay_as_written() -> None:
    text = '{"z":1.50,"a":[{"v":1.0e2,"w":"é"},{"v":0.10}],"b":{"c":[1.00]}}'.encode()
    moved = patched(text, op("move", "/b/d", **{"from": "/a/0"}), op("copy", "/y", **{"from": "/z"}))
    assert moved == '{"z":1.50,"a":[{"v":0.10}],"b":{"c":[1.00],"d":{"v":1.0e2,"w":"é"}},"y":1.50}'.encode()
    added = json_patch.apply(json_patch.parse(b'[{"op":"add","path":"/b/c/0","value": 2.500}]'), text, LIMIT)
    assert b'"c":[2.500,1.00]' in added
    assert patched(text, op("test", "/z", value=1.5)) == text


def test_copies_of_copies_do_not_grow_without_bound() -> None:
    with pytest.raises(Problem) as refused:
        patched(b'{"a":["x"]}', *[op("copy", "/a/-", **{"from": "/a"})] * 40)
    assert refused.value.kind == "too_large"


def plain(document: Any, operation: dict[str, Any]) -> Any:
    """JSON Patch on Python values, as the RFC words it; raises LookupError for what cannot be done."""
    document = json.loads(json.dumps(document))

    def place(path: str) -> tuple[Any, Any]:
        *way, last = path.split("/")[1:]
        node = document
        for step in way:
            node = node[int(step)] if isinstance(node, list) else node[step]
        return node, int(last) if isinstance(node, list) else last

    def put(path: str, value: Any) -> None:
        node, last = place(path)
        if isinstance(node, list):
            if last > len(node):
                raise IndexError
            node.insert(last, value)
        else:
            node[last] = value

    node, last = place(operation.get("from", operation["path"]))
    match operation["op"]:
        case "add":
            put(operation["path"], operation["value"])
        case "remove":
            del node[last]
        case "replace":
            node[last] = (node[last], operation["value"])[1]
        case "copy":
            put(operation["path"], json.loads(json.dumps(node[last])))
        case _:
            value = node[last]
            del node[last]
            put(operation["path"], value)
    return document


def test_random_patches_agree_with_patches_of_plain_values() -> None:
    chance, done = random.Random(6902), 0
    for _ in range(3000):
        document = {"a": [1, {"b": 2, "c": [3, 4]}, 5], "d": {"e": 6, "f": {"g": 7}}, "h": 8}
        for _ in range(4):
            paths = ("/a/0", "/a/1/b", "/a/1/c/1", "/a/2", "/d/e", "/d/f/g", "/h", "/a/3", "/d/new", "/x/y", "/d/f")
            operation = op(chance.choice(("add", "remove", "replace", "copy", "move")), chance.choice(paths))
            if operation["op"] in ("add", "replace"):
                operation["value"] = chance.choice((1, "x", [1], {"k": 1}))
            elif operation["op"] in ("copy", "move"):
                operation["from"] = chance.choice(paths)
                if operation["path"].startswith(operation["from"]):
                    continue
            try:
                expected = plain(document, operation)
            except (LookupError, TypeError, ValueError):
                expected = None
            try:
                found = json.loads(patched(json.dumps(document).encode(), operation))
            except Problem:
                found = None
            if expected is not None and b"[]" not in json.dumps(expected).encode() and b"{}" not in json.dumps(expected).encode():
                assert found == expected, (document, operation)
                document, done = expected, done + 1
            elif expected is None:
                assert found is None, (document, operation)
    assert done > 2000
