"""Primitive values are checked as R4's datatypes page requires."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.resources import definitions
from fhir_server.resources.primitives import VALID, is_json_kind, json_kind
from fhir_server.resources.xhtml import narrative

GOOD: dict[str, list[Any]] = {
    "base64Binary": ["aGVsbG8=", "aGVs bG8=", "AAAA", "aGVs\r\nbG8="],
    "boolean": [True, False],
    "canonical": ["http://x.org/a|1.0#b"],
    "code": ["a", "a b", "<=", "a-b.c"],
    "date": ["2020", "2020-01", "2020-02-29", "1900-12-31"],
    "dateTime": ["2020", "2020-01", "2020-01-31", "2020-01-31T23:59:60Z", "2020-01-31T10:00:00.123456789-14:00"],
    "decimal": [0, -1, Decimal("1.50"), Decimal("1E-22"), 10**30],
    "id": ["a", "A-1.b", "x" * 64],
    "instant": ["2020-02-29T10:00:00Z", "2020-02-29T10:00:00.1+05:30"],
    "integer": [0, -(2**31), 2**31 - 1],
    "markdown": ["# x\n\n* y", " "],
    "oid": ["urn:oid:1.2.840.0", "urn:oid:2.16"],
    "positiveInt": [1, 2**31 - 1],
    "string": ["x", "é🌍", "a\tb\r\nc", " "],
    "time": ["00:00:00", "23:59:60.5"],
    "unsignedInt": [0],
    "uri": ["urn:uuid:x", "http://x.org/é", "a"],
    "url": ["mailto:a@b"],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
    "xhtml": [
        '<div xmlns="http://www.w3.org/1999/xhtml"><b title="t">x</b><img src="data:image/png;base64,AA=="/></div>',
        '<div xmlns="http://www.w3.org/1999/xhtml"><img src="data: image/png;base64,AA=="/></div>',
    ],
}
BAD: dict[str, list[Any]] = {
    "base64Binary": ["", "a", "aGVsbG8", "=aaa", "a!!=", 1],
    "boolean": ["true", 0, 1, None],
    "canonical": ["a b", ""],
    "code": ["", " a", "a ", "a  b", 1],
    "date": ["2020-1", "2020-13", "2021-02-29", "2020-00-01", "0000", "20", "2020-01-01T00:00:00Z", "2020-04-31", "٢٠٢٠", 2020],
    "dateTime": ["2020-01-01T10:00Z", "2020-01-01T10:00:00", "2020-01-01T24:00:00Z", "2020-01-01T10:00:00+15:00", "2021-02-29T10:00:00Z"],
    "decimal": ["1", True, None, 1.5],
    "id": ["", "a_b", "x" * 65, "a\n", 1],
    "instant": ["2020-02-29", "2020-02-29T10:00:00", "2020-02-30T10:00:00Z"],
    "integer": [2**31, -(2**31) - 1, Decimal("1"), True, "1"],
    "markdown": ["", "\x00"],
    "oid": ["1.2", "urn:oid:3.1", "urn:oid:1.02"],
    "positiveInt": [0, -1, 2**31],
    "string": ["", "a\x07", 1, None, "x" * (1024 * 1024 + 1)],
    "time": ["24:00:00", "10:00", "10:00:00Z"],
    "unsignedInt": [-1, True],
    "uri": ["", "a b", "a\n"],
    "url": ["a b"],
    "uuid": ["urn:uuid:C757873D-EC9A-4326-A141-556F43239520", "c757873d-ec9a-4326-a141-556f43239520"],
    "xhtml": ["", "x", "<div>x</div>", '<div xmlns="http://www.w3.org/1999/xhtml"/>'],
}


@pytest.mark.parametrize("datatype", sorted(VALID))
def test_each_datatype_accepts_only_valid_values(datatype: str) -> None:
    assert [value for value in GOOD[datatype] if not VALID[datatype](value)] == []
    assert [value for value in BAD[datatype] if VALID[datatype](value)] == []
    assert json_kind(datatype) in ("a number", "a string", "true or false")
    assert all(is_json_kind(datatype, value) for value in GOOD[datatype])


def test_every_r4_primitive_type_has_a_check() -> None:
    assert VALID.keys() == definitions.primitives().keys()


PATTERNED = ["code", "date", "dateTime", "id", "instant", "oid", "time", "uuid"]


@given(st.sampled_from(PATTERNED), st.from_regex(r"[0-9T:Z+\-. a-z]{0,26}"))
def test_accepted_values_match_hl7_regular_expressions(datatype: str, text: str) -> None:
    pattern = definitions.primitives()[datatype]
    assert pattern is not None
    assert re.fullmatch(pattern, text) or not VALID[datatype](text)


OPEN = '<div xmlns="http://www.w3.org/1999/xhtml">'


@pytest.mark.parametrize(
    "inner",
    [
        "<script>x</script>",
        '<p onclick="x">y</p>',
        '<a href="javascript:x">y</a>',
        '<a href=" JavaScript:x">y</a>',
        "<form>x</form>",
        '<img src="data:text/html,x"/>',
        '<img src="data: text/html,x"/>',
        '<a href="java&#9;script:x">y</a>',
        '<a href="&#10;java&#13;script:x">y</a>',
        '<img src="da&#9;ta:text/html,image/"/>',
        "<p>unclosed",
        "&nbsp;x",
        "<iframe>x</iframe>",
        "<?php x ?>y",
        "<![CDATA[x]]>",
        "   ",
        '<svg xmlns="http://www.w3.org/2000/svg">x</svg>',
        "<P>x</P>",
    ],
)
def test_active_or_broken_narrative_is_refused(inner: str) -> None:
    assert not narrative(f"{OPEN}{inner}</div>")
    assert narrative(f"{OPEN}<p>x</p></div>")


def test_narrative_may_not_declare_entities() -> None:
    assert not narrative(f'<!DOCTYPE div [<!ENTITY a "b">]>{OPEN}&a;</div>')
    assert not narrative(f"\ufeff{OPEN}x</div>")
