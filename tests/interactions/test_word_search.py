"""``_text``, ``_content`` and ``:text`` find what the caller reads, by every way to search, after an upgrade too."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.maintenance.relabel import relabel_store
from fhir_server.search import words
from tests.filled import filled, served_with
from tests.served import Served

_DIV = '<div xmlns="http://www.w3.org/1999/xhtml">Narrated zebra</div>'
_CATEGORY = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}
_LATER = [{"url": "https://fhir-server.example/ig/StructureDefinition/release-at", "valueInstant": "2030-01-01T00:00:00Z"}]
VISIT = {
    "resourceType": "Encounter", "id": "later", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": "Patient/adult"},
    "extension": _LATER,
}  # fmt: skip


def _row(id: str, patient: str, **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8310-5", "display": "Body temperature"}], "text": "Fièvre"}
    about = {"status": "final", "category": [_CATEGORY], "subject": {"reference": f"Patient/{patient}"}, "code": code}
    return {"resourceType": "Observation", "id": id, **about, **more}


ROWS = (
    _row("told", "adult", text={"status": "generated", "div": _DIV}, note=[{"text": "Gazelle observed"}]),
    _row("plain", "adult", valueString="gazelle"),
    _row("visited", "adult", text={"status": "generated", "div": _DIV}, encounter={"reference": "Encounter/later", "display": "okapi"}),
    _row("parted", "teen", text={"status": "generated", "div": _DIV}, valueString="antelope", component=[
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6", "display": "Giraffe"}]}},
        {"code": {"coding": [{"system": "http://loinc.org", "code": "68961-2", "display": "Hippopotamus"}]}},  # a test for HIV
    ]),
)  # fmt: skip


STORED = (VISIT, *ROWS)
served = served_with(*STORED, stores=("memory",))


def _found(served: Served, token: str, query: str, type: str = "Observation") -> set[str]:
    answer = served.get(token, f"{type}?{query}&_count=500")
    assert answer.status == 200, answer.json
    return set(answer.ids(type)) & {row["id"] for row in ROWS}


FOUND = [
    ("_text=zebra", {"told", "visited", "parted"}), ("_text=gazelle", set()), ("_content=zebra", {"told", "visited", "parted"}),
    ("_content=GAZELLE", {"told", "plain"}), ("_content=gazelle%20and%20zebra", {"told"}), ("_content=okapi", {"visited"}),
    ("_content=gazelle%20or%20okapi", {"told", "plain", "visited"}), ("_content=gazelle,okapi&_text=zebra", {"told", "visited"}),
    ("_content=fievre&_id=plain", {"plain"}), ("code:text=fie", {"told", "plain", "visited", "parted"}), ("code:text=temperature", set()),
    ("code:text=body%20temp", {"told", "plain", "visited", "parted"}), ("component-code:text=hippo", {"parted"}),
    ("combo-code:text=giraffe", {"parted"}), ("_content=antelope&subject:Patient._content=toni", {"parted"}),
]  # fmt: skip


@pytest.mark.parametrize(("query", "ids"), FOUND)
def test_words_and_texts_are_found(served: Served, query: str, ids: set[str]) -> None:
    assert _found(served, served.token(), query) == ids


def test_words_of_what_is_cut_are_not_found(served: Served) -> None:
    own, feed = served.app_token("parent-a", "teen"), served.token()
    shown = served.get(own, "Observation/parted")
    assert shown.status == 200 and "text" not in shown.json and "Hippopotamus" not in str(shown.json)
    for query in (
        "_text=zebra",
        "_content=zebra",
        "_content=hippopotamus",
        "component-code:text=hippo",
        "_content=antelope%20hippopotamus",
    ):
        assert "parted" not in _found(served, own, query), query
        assert "parted" in _found(served, feed, query), query
    for query in ("_content=antelope", "_content=giraffe", "component-code:text=giraffe"):
        assert "parted" in _found(served, own, query), query


def test_words_guarded_by_a_row_that_is_not_yet_released_are_not_found(served: Served) -> None:
    own = served.app_token("adult", "adult")
    shown = served.get(own, "Observation/visited").json
    assert "encounter" not in shown and "text" not in shown
    assert _found(served, own, "_content=okapi") == set() and _found(served, own, "_text=zebra") == {"told"}
    assert _found(served, own, "_content=vital&_id=visited") == {"visited"}


def test_words_are_found_by_post_batch_and_conditions_too(served: Served) -> None:
    feed = served.token()
    posted = served.request(feed, "POST", "Observation/_search", form=[("_content", "okapi")])
    assert posted.ids() == ["visited"]
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": "Observation?_text=zebra&_id=told"}}],
    }
    (entry,) = served.request(feed, "POST", "", body=batch).json["entry"]
    assert [inner["resource"]["id"] for inner in entry["resource"]["entry"]] == ["told"]


def test_changed_words_are_found_and_former_ones_are_not(served: Served) -> None:
    feed = served.token()
    assert served.request(feed, "PUT", "Observation/plain", body=_row("plain", "adult", valueString="kudu")).status == 200
    assert _found(served, feed, "_content=kudu") == {"plain"} and _found(served, feed, "_content=gazelle") == {"told"}
    assert served.request(feed, "PUT", "Observation/plain", body=ROWS[1]).status == 200


def test_resources_of_an_earlier_version_are_found_after_relabel(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = words.entries
    monkeypatch.setattr(words, "entries", lambda *_: [])
    server = filled(*STORED)
    monkeypatch.setattr(words, "entries", exact)
    feed = server.token()
    assert _found(server, feed, "_content=gazelle") == set()
    report = server.run(relabel_store(server.parts.store, server.parts.labeler, server.settings.base, server.parts.clock()))
    assert _found(server, feed, "_content=gazelle") == {"told", "plain"} and report.changed == 0
    server.close()
