"""Words of sensitive content in texts: boundaries, accents, second signals, exclusions, speed; recall and precision as published."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from fhir_server.consent.sensitivity_codes import SensitivityCodes
from fhir_server.consent.text_reading import read_attachment, read_html
from fhir_server.consent.word_search import MAX_SEARCHED_TEXT, Word, WordSearch
from tests.consent.quality_gate import table, word_of
from tests.consent.word_quality import Quality, measure, published

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CODES = SensitivityCodes.load()
WORDS = table(ROOT / "ig" / "sources" / "words.csv")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Prueba de VIH", {"HIV"}), ("SÍFILIS", {"STD"}), ("si\u0301filis", {"STD"}), ("Papanicolaou", {"PAP"}),
        ("H\u200bIV", {"HIV"}), ("ＨＩＶ", {"HIV"}), ("HIV_screen", {"HIV"}), ("pre-natal; prenatal", {"PREG"}),
        ("post traumatic\u00a0stress", {"MH"}), ("hives", set()), ("archive", set()), ("papaya", set()), ("Cpap", set()),
        ("tox+ today", {"DRUGTEST"}), ("C. diff tox A/B", set()), ("D&C done", {"REPRO"}), ("vitamins D, C", set()),
        ("ST depression, then depression", {"MH"}), ("ST depression", set()), ("suboxin", {"SUD"}),
    ],
)  # fmt: skip
def test_words_match_whole_tokens_without_accents(text: str, labels: set[str]) -> None:
    assert CODES.read_text(text).labels == labels


def test_word_that_needs_context_gives_a_possible_label_only() -> None:
    reading = CODES.read_text("OCD lesion of the knee")
    assert (reading.labels, reading.possible) == (frozenset(), {"MH"})


@pytest.mark.parametrize("row", [row for row in WORDS if row["counter_example"]], ids=lambda row: row["term"])
def test_counter_example_of_a_word_has_no_label(row: dict[str, str]) -> None:
    assert CODES.read_text(row["counter_example"]).labels == frozenset()


def test_word_list_covers_each_category_in_both_languages() -> None:
    found = {(row["label"], row["language"]) for row in WORDS}
    assert len({label for label, _ in found}) == 10 and {language for _, language in found} == {"en", "es"}
    assert len(found) == 20
    assert {row["kind"] for row in WORDS} >= {"abbreviation", "brand", "misspelling", "slang", "clinical", "phrase"}


@pytest.mark.parametrize("row", table(HERE / "controls.csv"), ids=lambda row: row["code"] or row["text"])
def test_control_is_sensitive_or_not(row: dict[str, str]) -> None:
    system = {"LOINC": "http://loinc.org", "SNOMED": "http://snomed.info/sct", "CVX": "http://hl7.org/fhir/sid/cvx",
              "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm", "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm"}  # fmt: skip
    labels = CODES.classify(system[row["system"]], row["code"]).labels if row["system"] else CODES.read_text(row["text"]).labels
    assert row["label"] in labels if row["label"] else not labels


def test_published_recall_and_precision_are_those_measured() -> None:
    measured = measure(CODES, HERE / "clinic_terms.csv")
    assert measured == published(ROOT / "docs" / "codes.md")
    whole = measured["all"]
    assert whole.recall >= 90 and whole.precision >= 95


def test_measure_detects_a_missing_and_an_overbroad_word() -> None:
    rows = [word_of(row) for row in WORDS]
    without = WordSearch(row for row in rows if row.label != "HIV")
    overbroad = WordSearch([*rows, Word("cough", "HIV")])
    terms = HERE / "clinic_terms.csv"
    assert measure(Quality.of(without), terms)["HIV en"].recall == 0
    assert measure(Quality.of(overbroad), terms)["HIV en"].precision < measure(CODES, terms)["HIV en"].precision


def test_search_time_is_proportional_to_the_length_of_the_text() -> None:
    search = WordSearch(word_of(row) for row in WORDS)

    def cost(text: str) -> float:
        search.search(text)
        return min(_timed(search, text) for _ in range(5))

    for unit in ("hiv ", "a", "pregnan", "st depression ", "(((", "sexual sexual abus ", "<p "):
        assert cost(unit * (40_000 // len(unit))) < 40 * cost(unit * (4_000 // len(unit))) + 0.01, unit


def _timed(search: WordSearch, text: str) -> float:
    start = time.process_time()
    search.search(text)
    return time.process_time() - start


def test_text_beyond_the_limit_counts_as_unread() -> None:
    assert CODES.read_text("x" * MAX_SEARCHED_TEXT).complete
    long = "HIV " + "x" * MAX_SEARCHED_TEXT
    assert not CODES.read_text(long).complete and CODES.read_text(long).labels == {"HIV"}
    assert CODES.labels_in_text("x " * MAX_SEARCHED_TEXT) == {"UNCLASSIFIED"}


@pytest.mark.parametrize(
    ("html", "labels"),
    [
        ("<div><b>H</b>IV</div>", {"HIV"}), ("<p>ST</p><p>depression</p>", set()), ("<td>HIV</td><td>neg</td>", {"HIV"}),
        ('<img src="x.png" alt="Syphilis"/>', {"STD"}), ("<!-- HIV -->", {"HIV"}), ("&#72;IV", {"HIV"}), ("s&iacute;filis", {"STD"}),
        ('<a href="http://hiv.example">here</a>', {"HIV"}), ('<div class="hiv">cough</div>', set()), ("<p>a < b HIV", {"HIV"}),
    ],
)  # fmt: skip
def test_markup_is_read_as_people_see_it(html: str, labels: set[str]) -> None:
    assert read_html(CODES, html).labels == labels


def attachment(data: bytes, content_type: str = "text/plain") -> dict[str, str]:
    return {"contentType": content_type, "data": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("value", "labels", "complete"),
    [
        (attachment(b"HIV Ab reactive"), {"HIV"}, True), (attachment(b"All well"), set(), True),
        (attachment(b"<p>HIV</p>", "text/html; charset=utf-8"), {"HIV"}, True),
        (attachment("Sífilis".encode("latin-1"), "text/plain;charset=ISO-8859-1"), {"STD"}, True),
        (attachment(b"%PDF-1.4", "application/pdf"), set(), False), (attachment(b"HIV", ""), set(), False),
        (attachment(b"\xff\xfe", "text/plain"), set(), False), ({"contentType": "text/plain", "data": "?"}, set(), False),
        ({"url": "https://example.org/letter.txt", "title": "HIV letter"}, {"HIV"}, False), ({"title": "Letter"}, set(), True),
        (attachment(b"a" * (MAX_SEARCHED_TEXT + 1)), set(), False), (attachment(b"x", "text/plain; charset=none-such"), set(), False),
    ],
)  # fmt: skip
def test_attachment_is_read_if_it_is_text(value: dict[str, str], labels: set[str], complete: bool) -> None:
    reading = read_attachment(CODES, value)
    assert (reading.labels, reading.complete) == (labels, complete)


def test_word_lists_without_letters_or_with_a_foreign_exclusion_raise() -> None:
    with pytest.raises(ValueError, match="without letters"):
        WordSearch([Word("+", "HIV")])
    with pytest.raises(ValueError, match="does not contain"):
        WordSearch([Word("prep", "HIV", unless=("bowel",))])
