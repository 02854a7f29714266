"""MolecularSequences are found by chromosome or reference sequence with start and end of one variant, as far as the caller sees them."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.maintenance.relabel import relabel_store
from fhir_server.search import coordinates, predicates
from tests.filled import filled, served_with
from tests.noninterference.resource_factory import restriction
from tests.served import Served

_CHROMOSOMES = "http://terminology.hl7.org/CodeSystem/chromosome-human"
_SEQUENCES = "http://www.ncbi.nlm.nih.gov/nuccore"


def _sequence(id: str, reference: dict[str, Any], *variants: tuple[int | None, int | None]) -> dict[str, Any]:
    found = [{name: at for name, at in (("start", start), ("end", end)) if at is not None} or {"cigar": "3I"} for start, end in variants]
    about = {"patient": {"reference": "Patient/child"}, "coordinateSystem": 0}
    return {"resourceType": "MolecularSequence", "id": id, **about, "referenceSeq": {"orientation": "sense", **reference}, "variant": found}


def _on(chromosome: str) -> dict[str, Any]:
    return {"chromosome": {"coding": [{"system": _CHROMOSOMES, "code": chromosome}]}, "genomeBuild": "GRCh 37"}


NAMED = {"referenceSeqId": {"coding": [{"system": _SEQUENCES, "code": "NC_1"}]}}
ROWS = (
    _sequence("one", _on("1"), (100, 200)), _sequence("two", _on("1"), (100, 150), (300, 400)), _sequence("other", _on("2"), (100, 200)),
    _sequence("halves", _on("1"), (100, None), (None, 200)), _sequence("none", _on("1"), (None, None)),
    _sequence("named", NAMED, (100, 200)), _sequence("early", _on("1"), (0, 0)),
)  # fmt: skip
served = served_with(*ROWS)

FOUND = [
    ("chromosome-variant-coordinate=1$100$200", {"one"}), ("chromosome-variant-coordinate=1$100$400", set()),
    ("chromosome-variant-coordinate=1$ge100$le200", {"one", "two"}), ("chromosome-variant-coordinate=1$lt300$gt200", set()),
    ("chromosome-variant-coordinate=1$gt200$gt200", {"two"}), ("chromosome-variant-coordinate=1$ne100$ne200", {"two", "early"}),
    ("chromosome-variant-coordinate=1$0$0", {"early"}), ("chromosome-variant-coordinate=1$sa99$eb151", {"two"}),
    ("chromosome-variant-coordinate=1$ap105$ap205", {"one"}), ("chromosome-variant-coordinate=3$ge0$ge0", set()),
    (f"chromosome-variant-coordinate={_CHROMOSOMES}|2$100$200", {"other"}), ("chromosome-variant-coordinate=urn:x|2$100$200", set()),
    ("chromosome-variant-coordinate=1$100$150,2$100$200", {"two", "other"}), ("chromosome-variant-coordinate=NC_1$100$200", set()),
    ("referenceseqid-variant-coordinate=NC_1$100$200", {"named"}), ("referenceseqid-variant-coordinate=NC_1$gt100$200", set()),
    ("variant-start=100&variant-end=400", {"two"}),
]  # fmt: skip


@pytest.mark.parametrize(("query", "ids"), FOUND)
def test_start_and_end_are_those_of_one_variant(served: Served, query: str, ids: set[str]) -> None:
    for token in (served.token(), served.app_token("parent-a", "child")):
        answer = served.get(token, f"MolecularSequence?{query}&_total=accurate")
        assert answer.status == 200, answer.json
        assert set(answer.ids()) == ids and answer.json["total"] == len(ids)


def test_hidden_sequence_is_not_found_by_its_variants(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "child")
    path = "MolecularSequence?chromosome-variant-coordinate=1$100$200"
    hidden = restriction("child", "RelatedPerson/parent-a-of-child", "MolecularSequence/one")
    id = served.request(feed, "POST", "Consent", body=hidden).json["id"]
    answer = served.get(parent, path)
    assert answer.ids() == [] and answer.json["total"] == 0 and served.get(feed, path).ids() == ["one"]
    assert served.request(feed, "DELETE", f"Consent/{id}").status == 204
    assert served.get(served.app_token("adult", "adult"), path).json["total"] == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [("1$5", "code$value$value"), ("1$x$3", "a number is written"), ("1$1$2$3", "code$value$value"), ("1$$2", "code$value$value")],
)
def test_malformed_coordinates_are_refused(served: Served, value: str, said: str) -> None:
    answer = served.get(served.token(), f"MolecularSequence?chromosome-variant-coordinate={value}")
    assert answer.status == 400 and said in answer.json["issue"][0]["diagnostics"]
    assert served.get(served.token(), "MolecularSequence?chromosome-variant-coordinate:missing=true").status == 400


def test_ends_of_different_variants_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = filled(*ROWS)
    path = "MolecularSequence?chromosome-variant-coordinate=1$100$gt200"
    assert server.get(server.token(), path).ids() == []
    monkeypatch.setitem(predicates._NUMBER, "gt", lambda test, number: True)
    assert server.get(server.token(), path).ids() != []
    server.close()


def test_sequences_stored_before_are_found_after_relabel(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = coordinates.entries
    monkeypatch.setattr(coordinates, "entries", lambda *_: iter(()))
    server = filled(*ROWS)
    monkeypatch.setattr(coordinates, "entries", exact)
    path = "MolecularSequence?chromosome-variant-coordinate=1$100$200"
    assert server.get(server.token(), path).ids() == []
    server.run(relabel_store(server.parts.store, server.parts.labeler, server.settings.base, server.parts.clock()))
    assert server.get(server.token(), path).ids() == ["one"]
    server.close()
