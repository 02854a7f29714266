"""Search parameter types: what each reads from an element and from a client's text."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.clock import MAX_INSTANT, MIN_INSTANT
from fhir_server.search.escaping import split, unescape
from fhir_server.search.filters import DateIs, QuantityIs, RefersTo, TextIs, TokenIs, UnderUrl
from fhir_server.search.parameter_types import PARAMETER_TYPES, ValueContext
from fhir_server.search.parameter_types.date import MINUTE, SECOND, interval
from fhir_server.search.parameter_types.string import fold
from fhir_server.search.zones import DAY

BASE = "http://us.example/fhir"


def read(kind: str, value: Any) -> list[tuple[Any, ...]]:
    return [found for found, _ in PARAMETER_TYPES[kind].extract(value, BASE)]


def asked(kind: str, text: str, **context: Any) -> Any:
    return PARAMETER_TYPES[kind].parse_value(text, ValueContext(base=BASE, **context))


def at(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1_000_000)


ELEMENTS = [
    ("token", "final", [("", "final")]),
    ("token", True, [("", "true")]),
    ("token", {"system": "s", "code": "c", "display": "d"}, [("s", "c")]),
    ("token", {"coding": [{"system": "s", "code": "c"}, {"code": "d"}, {"display": "?"}], "text": "t"}, [("s", "c"), ("", "d")]),
    ("token", {"text": "only text"}, []),
    ("token", {"system": "s"}, []),
    ("token", {"system": "urn:mrn", "value": "1", "type": {"text": "MRN"}}, [("urn:mrn", "1")]),
    ("token", {"system": "phone", "value": "555", "use": "home"}, [("phone", "555")]),
    ("reference", {"reference": "Patient/1"}, [("Patient/1",)]),
    ("reference", {"reference": "Patient/1/_history/3"}, [("Patient/1",)]),
    ("reference", {"reference": BASE + "/Patient/1/_history/3"}, [("Patient/1",)]),
    ("reference", {"reference": BASE + "er/Patient/1"}, [(BASE + "er/Patient/1",)]),
    ("reference", {"reference": "http://them.example/Patient/1/_history/3"}, [("http://them.example/Patient/1",)]),
    ("reference", {"reference": "urn:uuid:1"}, [("urn:uuid:1",)]),
    ("reference", {"reference": "#contained"}, []),
    ("reference", {"identifier": {"value": "1"}}, []),
    ("reference", "http://q.example/Questionnaire/a|1.2", [("http://q.example/Questionnaire/a",), ("http://q.example/Questionnaire/a|1.2",)]),
    ("uri", "http://x.example/a|1", [("http://x.example/a|1",)]),
    ("string", "Łódź  Größe", [("łodz grosse", "Łódź  Größe")]),
    ("string", {"family": "Ng", "given": ["An", "Bo"], "use": "official"}, [("ng", "Ng"), ("an", "An"), ("bo", "Bo")]),
    ("string", {"line": ["1 Main"], "city": "Bonn", "use": "home"}, [("1 main", "1 Main"), ("bonn", "Bonn")]),
    ("number", 3, [(3.0, "", "", "")]),
    ("number", Decimal("0.10"), [(0.1, "", "", "")]),
    ("number", 10**400, []),
    ("number", Decimal("1e999"), []),
    ("number", {"low": {"value": 1}, "high": {"value": 2}}, [(1.0, "", "", ""), (2.0, "", "", "")]),
    ("quantity", {"value": Decimal("5.40"), "system": "u", "code": "mg", "unit": "milligram"}, [(5.4, "u", "mg", "milligram")]),
    ("quantity", {"value": 1, "currency": "USD"}, [(1.0, "urn:iso:std:iso:4217", "USD", "")]),
    ("quantity", {"low": {"value": 1, "code": "a"}}, [(1.0, "", "a", "")]),
    ("quantity", {"unit": "mg"}, []),
    ("date", "2020-02-30", []),
    ("date", {"start": "2020"}, [(at("2020-01-01T00:00:00Z"), MAX_INSTANT)]),
    ("date", {"end": "2020-01"}, [(MIN_INSTANT, at("2020-02-01T00:00:00Z"))]),
    ("date", {"start": "2021", "end": "2020"}, []),
    ("date", {}, []),
    ("date", {"event": ["2020-01-05", "2020-01-01"]}, [(at("2020-01-01T00:00:00Z"), at("2020-01-06T00:00:00Z"))]),
    ("date", {"repeat": {"boundsPeriod": {"start": "2020"}}}, [(at("2020-01-01T00:00:00Z"), MAX_INSTANT)]),
    ("date", {"repeat": {"frequency": 1}}, []),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), ELEMENTS)
def test_element_yields_the_expected_entries(kind: str, value: Any, expected: list[tuple[Any, ...]]) -> None:
    assert read(kind, value) == expected


TEXTS = [
    ("token", "a", {}, TokenIs(None, "a")),
    ("token", "s|a", {}, TokenIs("s", "a")),
    ("token", "|a", {}, TokenIs("", "a")),
    ("token", "s|", {}, TokenIs("s", None)),
    ("token", r"s\|t|a\,b", {}, TokenIs("s|t", "a,b")),
    ("string", "  Größe X", {}, TextIs("grosse x", "prefix")),
    ("string", "Größe", {"modifier": "exact"}, TextIs("Größe", "exact")),
    ("string", "É", {"modifier": "contains"}, TextIs("e", "contains")),
    ("reference", "Patient/1", {}, RefersTo(frozenset({"Patient/1"}))),
    ("reference", "1", {"targets": ("Patient", "Group")}, RefersTo(frozenset({"Patient/1", "Group/1"}))),
    ("reference", "1", {"targets": ("Patient", "Group"), "modifier": "Group"}, RefersTo(frozenset({"Group/1"}))),
    ("reference", BASE + "/Patient/1/_history/2", {}, RefersTo(frozenset({"Patient/1"}))),
    ("reference", "http://q.example/a|1.2", {}, RefersTo(frozenset({"http://q.example/a|1.2"}))),
    ("reference", "urn:uuid:1", {}, RefersTo(frozenset({"urn:uuid:1"}))),
    ("uri", "urn:a", {}, RefersTo(frozenset({"urn:a"}))),
    ("uri", "http://a.example/fhir/", {"modifier": "below"}, UnderUrl("http://a.example/fhir")),
    (
        "uri",
        "http://a.example/p|1",
        {"modifier": "above"},
        RefersTo(
            frozenset(
                {
                    "http://a.example",
                    "http://a.example/",
                    "http://a.example/p",
                    "http://a.example/p/",
                    "http://a.example/p|1",
                    "http://a.example/p|1/",
                }
            )
        ),
    ),
    ("number", "100", {}, QuantityIs("eq", 99.5, 100.5, 100.0)),
    ("number", "100.00", {}, QuantityIs("eq", 99.995, 100.005, 100.0)),
    ("number", "1e2", {}, QuantityIs("eq", 95.0, 105.0, 100.0)),
    ("number", "1.0e2", {}, QuantityIs("eq", 95.0, 105.0, 100.0)),
    ("number", "lt-2", {}, QuantityIs("lt", -2.5, -1.5, -2.0)),
    ("number", "ap100", {}, QuantityIs("ap", 90.0, 110.0, 100.0)),
    ("number", "ap1", {}, QuantityIs("ap", 0.5, 1.5, 1.0)),
    ("quantity", "5.4", {}, QuantityIs("eq", 5.35, 5.45, 5.4)),
    ("quantity", "ge5.4|u|mg", {}, QuantityIs("ge", 5.35, 5.45, 5.4, "u", "mg")),
    ("quantity", "5.4||mg", {}, QuantityIs("eq", 5.35, 5.45, 5.4, None, "mg")),
    ("quantity", "5.4|u|", {}, QuantityIs("eq", 5.35, 5.45, 5.4, "u", None)),
    ("date", "2020", {}, DateIs("eq", at("2020-01-01T00:00:00Z"), at("2021-01-01T00:00:00Z"))),
    ("date", "sa2020-12", {}, DateIs("sa", at("2020-12-01T00:00:00Z"), at("2021-01-01T00:00:00Z"))),
    ("date", "ap1970-01-02", {"now": 11 * DAY}, DateIs("ap", 0, 3 * DAY)),
]


@pytest.mark.parametrize(("kind", "text", "context", "expected"), TEXTS)
def test_search_value_parses_to_the_expected_condition(kind: str, text: str, context: dict[str, Any], expected: Any) -> None:
    assert asked(kind, text, **context) == expected


def test_plus_of_an_offset_may_have_become_a_blank() -> None:
    assert asked("date", "gt2020-01-01T10:00:00 02:00") == asked("date", "gt2020-01-01T10:00:00+02:00")


MALFORMED = {
    "token": ["a|b|c", "|", r"a\x", "a\\"],
    "string": [" "],
    "reference": ["Patient/1/2", "a b", "Patient?name=x"],
    "number": ["five", "5,4", "1e9999", "1e400", "", "xx5", "inf", "٣"],
    "quantity": ["5|mg", "5|a|b|c", "|u|mg"],
    "date": [
        "", "gt", "zz2020", "0000", "2020-13", "2020-02-30", "2020-1-1", "2020-01-01T10", "2020-01-01T25:00", "2020-01-01\n",
        "٢٠٢٠", "2020-01-01T10:00:00  02:00", "2020-01-01 10:00:00", "2020-01-01T10:00:00+99:00",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in MALFORMED.items() for text in texts])
def test_malformed_search_value_raises_an_error(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        asked(kind, text, targets=("Patient",))


def test_type_modifier_accepts_only_ids_of_that_type() -> None:
    assert asked("reference", "Patient/1", modifier="Patient") == RefersTo(frozenset({"Patient/1"}))
    with pytest.raises(ValueError, match="type"):
        asked("reference", "Group/1", modifier="Patient")


BOUNDARIES = [
    ("2020", "2020-01-01T00:00:00Z", 366 * DAY),
    ("2019-02", "2019-02-01T00:00:00Z", 28 * DAY),
    ("2020-02", "2020-02-01T00:00:00Z", 29 * DAY),
    ("2019-12", "2019-12-01T00:00:00Z", 31 * DAY),
    ("2019-12-31", "2019-12-31T00:00:00Z", DAY),
    ("1969-12-31", "1969-12-31T00:00:00Z", DAY),
    ("2019-12-31T23:59", "2019-12-31T23:59:00Z", MINUTE),
    ("2019-12-31T23:59:59", "2019-12-31T23:59:59Z", SECOND),
    ("2019-12-31T23:59:59Z", "2019-12-31T23:59:59Z", SECOND),
    ("2019-12-31T23:59:59-05:30", "2020-01-01T05:29:59Z", SECOND),
    ("2020-01-01T00:00:00+14:00", "2019-12-31T10:00:00Z", SECOND),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", SECOND),
    ("2020-01-01T00:00:00.1Z", "2020-01-01T00:00:00.100000Z", SECOND // 10),
    ("2020-01-01T00:00:00.120Z", "2020-01-01T00:00:00.120000Z", 1000),
    ("2020-01-01T00:00:00.123456Z", "2020-01-01T00:00:00.123456Z", 1),
    ("2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.123456Z", 1),
]


@pytest.mark.parametrize(("text", "begin", "length"), BOUNDARIES)
def test_partial_date_covers_its_whole_interval(text: str, begin: str, length: int) -> None:
    assert interval(text) == (at(begin), at(begin) + length)


def test_year_9999_has_an_end() -> None:
    assert interval("9999")[1] == interval("9999-12")[1] == interval("9999-12-31")[1]


@given(st.dates(min_value=datetime.date(1, 1, 1), max_value=datetime.date(9999, 12, 30)))
def test_consecutive_days_have_no_gap_or_overlap(day: datetime.date) -> None:
    lo, hi = interval(day.isoformat())
    assert hi == interval((day + datetime.timedelta(1)).isoformat())[0]
    month, year = interval(day.isoformat()[:7]), interval(day.isoformat()[:4])
    assert year[0] <= month[0] <= lo < hi <= month[1] <= year[1]


@given(st.text())
def test_text_folding_is_idempotent(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.lists(st.text(alphabet="a,|$\\")))
def test_escaped_values_round_trip_through_split_and_unescape(texts: list[str]) -> None:
    written = [text.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$") for text in texts]
    assert [unescape(piece) for piece in split(",".join(written), ",")] == (texts or [""])
