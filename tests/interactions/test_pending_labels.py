"""Hiding a visit with more rows than one transaction labels again: hidden at once, on every store, and labeled in small steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fhir_server.access.pending_labels import HiddenRows
from fhir_server.store import Store
from fhir_server.writing import pending_relabeling, propagation
from fhir_server.writing.pending_relabeling import count_pending
from fhir_server.writing.propagation import Propagation
from fhir_server.writing.relabeling_steps import relabel_next
from fhir_server.writing.row_labeling import RowLabeler
from tests.interactions.test_lent_labels import ACT, DECLASSIFY, ORDER, REPORT, RESULT, TEEN, VISIT, service
from tests.seeded import seeded
from tests.served import Answer, Served, store_url

ROWS = 28  # several times what the fixture `small` lets one transaction label again
BY_ORDER = {"basedOn": [{"reference": "ServiceRequest/long"}]}
E = {"encounter": {"reference": "Encounter/long"}}
REQUESTS = (
    "Observation?_summary=count", "Observation?encounter=Encounter/long&_summary=count", "Observation?_count=7", "Observation?_sort=-date",
    "Observation?code=718-7&_summary=count", "Observation?_id=long-3", "Observation/long-3", "Observation/long-4/_history",
    "Observation/long-4/_history/1", "Observation?encounter:missing=false", "Encounter?_revinclude=Observation:encounter&_count=100",
    "Encounter/long", "Encounter?_summary=count", "DiagnosticReport?_include=DiagnosticReport:result", "DiagnosticReport/long",
    "DiagnosticReport?result=Observation/long-3", "Observation/derived", "Observation/derived-again", "Observation/later",
    "Observation/of-later", "Specimen/tube", "Patient/teen/$everything?_count=1000", "Observation?_has:DiagnosticReport:result:_id=long",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _records_are_stored_before_the_tests_change_how(tmp_path_factory: pytest.TempPathFactory) -> None:
    for kind in ("memory", "sqlite", "mongodb"):
        seeded(store_url(kind, tmp_path_factory.mktemp("store"))).close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions that label few rows again, and short records and queries."""
    for module, names in ((propagation, {"MAX_ROWS": 5}), (pending_relabeling, {"PORTION": 4, "_PAGE": 11, "_TARGETS": 6, "_IDS": 9})):
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url(request.param, tmp_path)


def visit(hidden: bool) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": "long", **VISIT, **({"serviceType": service("142")} if hidden else {"meta": DECLASSIFY})}


def put(served: Served, name: str, **content: Any) -> Answer:
    type, _, id = name.partition("/")
    answer = served.request(served.token(), "PUT", name, body={"resourceType": type, "id": id, **content})
    assert answer.status in (200, 201), answer.body
    return answer


def fill(served: Served, rows: int = ROWS) -> None:
    """Store a visit with results, and rows that inherit from it through these."""
    put(served, "Encounter/long", **visit(False))
    kind = {"coding": [{"system": "http://snomed.info/sct", "code": "119297000"}]}
    put(served, "Specimen/tube", subject=TEEN, status="available", type=kind)
    results = [{"resourceType": "Observation", "id": f"long-{n}", **RESULT, **E} for n in range(rows)]
    entries = [{"resource": one, "request": {"method": "PUT", "url": f"Observation/{one['id']}"}} for one in results]
    for start in range(0, rows, 1000):
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries[start : start + 1000]}
        assert served.request(served.token(), "POST", "", body=bundle).status == 200
    put(served, "Observation/long-4", **RESULT, **E, valueString="second version")
    put(served, "Observation/long-5", **RESULT, **E, specimen={"reference": "Specimen/tube"})
    put(served, "DiagnosticReport/long", **REPORT, **E, result=[{"reference": "Observation/long-3"}])
    put(served, "ServiceRequest/long", **ORDER, **E)
    put(served, "Observation/derived", **RESULT, **BY_ORDER)
    put(served, "Observation/derived-again", **RESULT, **BY_ORDER)


def hide(served: Served) -> None:
    put(served, "Encounter/long", **visit(True))


def step(served: Served) -> bool:
    parts = served.parts
    return served.run(relabel_next(parts.store, parts.labeler, served.settings.base))


def finish(served: Served) -> int:
    steps = 0
    while step(served):
        steps += 1
    return steps


def pending(store: Store, served: Served) -> int:
    return served.run(count_pending(store))


def answers(served: Served, token: str) -> dict[str, Any]:
    """What the caller is told, without the times and versions of the searchset itself."""
    return {path: (one.status, one.body) for path in REQUESTS for one in (served.get(token, path),)}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [path for path in REQUESTS if one[path] != other[path]]


def without_page_links(found: dict[str, Any]) -> dict[str, Any]:
    """The answers without the links to next pages, which are bound to the token."""
    return {path: (status, re.sub(rb'"next","url":"[^"]*"', b"", body)) for path, (status, body) in found.items()}


def test_long_visit_is_hidden_at_once_and_at_every_step(url: str, small: None) -> None:
    served = seeded(url)
    try:
        fill(served)
        parent, feed = served.app_token("parent-a", "teen"), served.token()
        shown, everything = answers(served, parent), answers(served, feed)
        hide(served)
        assert pending(served.parts.store, served) >= ROWS
        now = answers(served, parent)
        stages = [now]
        of_feed = answers(served, feed)
        while step(served):
            stages.append(answers(served, parent))
            assert answers(served, feed) == of_feed
        assert len(stages) > ROWS / 4 and pending(served.parts.store, served) == 0
        assert all(differences(stage, stages[-1]) == [] for stage in stages)
        assert len(differences(shown, now)) > 15
        assert of_feed["Observation?_summary=count"] == everything["Observation?_summary=count"]
    finally:
        served.close()


def test_long_visit_gets_the_labels_of_a_single_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for folder, limit in (("one", 10_000), ("several", 5)):
        monkeypatch.setattr(propagation, "MAX_ROWS", limit)
        (tmp_path / folder).mkdir()
        served = Served(store_url("sqlite", tmp_path / folder), new_id=iter(map(str, range(10**6))).__next__)
        fill(served)
        hide(served)
        assert (finish(served) > 0) == (folder == "several")
        found.append(without_page_links(answers(served, served.app_token("parent-a", "teen"))))
        put(served, "Encounter/long", **visit(False))
        finish(served)
        found.append(without_page_links(answers(served, served.app_token("parent-a", "teen"))))
        served.close()
    assert differences(found[0], found[2]) == differences(found[1], found[3]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("sqlite", "mongodb"))
def test_visit_of_thousands_of_rows_is_hidden_at_once(kind: str, tmp_path: Path) -> None:
    served = seeded(store_url(kind, tmp_path))
    try:
        fill(served, 6000)
        parent, total = served.app_token("parent-a", "teen"), "Observation?encounter=Encounter/long&_summary=count"
        assert served.get(parent, total).json["total"] == 6000
        hide(served)
        assert pending(served.parts.store, served) >= 6000
        assert served.get(parent, total).json["total"] == 0 and served.get(parent, "Observation/long-5999").status == 404
        assert served.get(served.token(), total).json["total"] == 6000
        assert finish(served) > 60 and pending(served.parts.store, served) == 0
        assert served.get(parent, total).json["total"] == 0
    finally:
        served.close()


def test_killed_relabeling_continues_in_the_next_process(tmp_path: Path, small: None) -> None:
    for kind in ("sqlite", "mongodb"):
        url = store_url(kind, tmp_path)
        served = seeded(url)
        fill(served)
        hide(served)
        assert step(served) and step(served) and step(served)
        before = without_page_links(answers(served, served.app_token("parent-a", "teen")))
        left = pending(served.parts.store, served)
        served.close()
        again = Served(url, seeds=False)
        assert pending(again.parts.store, again) == left > 0
        assert differences(without_page_links(answers(again, again.app_token("parent-a", "teen"))), before) == []
        assert finish(again) > 0 and pending(again.parts.store, again) == 0
        assert differences(without_page_links(answers(again, again.app_token("parent-a", "teen"))), before) == []
        again.close()


def test_progress_counts_no_row_twice(small: None) -> None:
    served = seeded()
    fill(served)
    hide(served)
    counts = [pending(served.parts.store, served)]
    while step(served):
        counts.append(pending(served.parts.store, served))
    served.close()
    assert ROWS <= max(counts) < 1.25 * ROWS and counts[-1] == 0


def versions_of_longest_step(patch: pytest.MonkeyPatch) -> int:
    """Hide a visit with rows of 24 versions.  Return how many versions a step labels again at most."""
    served = seeded()
    put(served, "Encounter/long", **visit(False))
    for n in range(6):
        for text in range(24):
            put(served, f"Observation/long-{n}", **RESULT, **E, valueString=str(text))
    labeled: list[int] = [0]
    right = RowLabeler.label

    async def counted(*args: Any, **more: Any) -> Any:
        labeled[-1] += 1
        return await right(*args, **more)

    patch.setattr(RowLabeler, "label", counted)
    hide(served)
    labeled.append(0)
    while step(served):
        labeled.append(0)
    assert pending(served.parts.store, served) == 0
    assert served.get(served.app_token("parent-a", "teen"), "Observation?encounter=Encounter/long&_summary=count").json["total"] == 0
    served.close()
    assert sum(labeled) >= 6 * 24
    return max(labeled)


def test_step_is_bounded_by_versions_and_not_by_rows(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        assert versions_of_longest_step(patch) <= 24 + 1
    monkeypatch.setattr(propagation, "_VERSIONS", 1000)
    assert versions_of_longest_step(monkeypatch) >= 4 * 24


@pytest.mark.parametrize("fault", ("mark", "closure", "epoch"))
def test_faults_in_marks_are_found(small: None, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    if fault == "mark":
        monkeypatch.setattr(HiddenRows, "without", lambda self, type, data_classes, where: where)
    elif fault == "closure":

        async def direct(self: Any, rows: Any, sources: Any) -> Any:
            found = dict(rows)
            for source in sources:
                found |= await self._tx.referrer_names_unfiltered((source,))
            return found

        monkeypatch.setattr(pending_relabeling.Backlog, "_closure", direct)
    with pytest.MonkeyPatch.context() as patch:
        served = seeded()
        fill(served)
        parent = served.app_token("parent-a", "teen")
        answers(served, parent)
        if fault == "epoch":

            async def nothing(self: Any, patient: Any) -> None:
                pass

            patch.setattr(type(served.run(_transaction(served.parts.store))), "advance_epoch", nothing)
        hide(served)
        now = answers(served, parent)
    finish(served)
    fresh = answers(served, served.app_token("parent-a", "teen"))
    assert differences(now, fresh)
    served.close()


async def _transaction(store: Store) -> Any:
    async def itself(tx: Any) -> Any:
        return tx

    return await store.write(itself)


def test_rows_written_meanwhile_inherit_what_is_pending(url: str, small: None) -> None:
    served = seeded(url)
    try:
        fill(served)
        hide(served)
        parent = served.app_token("parent-a", "teen")
        put(served, "Observation/later", **RESULT, **BY_ORDER)
        put(served, "Observation/of-later", **RESULT, **BY_ORDER)
        stages = [answers(served, parent)]
        while step(served):
            stages.append(answers(served, parent))
        assert all(differences(stage, stages[-1]) == [] for stage in stages)
        assert served.get(parent, "Observation/later").status == served.get(parent, "Observation/of-later").status == 404
    finally:
        served.close()


def test_pending_sources_that_are_forgotten_are_found(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, row: Any) -> None:
        pass

    monkeypatch.setattr(Propagation, "_hide_if_source_is_pending", nothing)
    served = seeded()
    fill(served)
    hide(served)
    put(served, "Observation/later", **RESULT, **BY_ORDER)
    assert served.get(served.app_token("parent-a", "teen"), "Observation/later").status == 200
    served.close()


def test_hidden_change_of_a_hidden_visit_shows_nothing(url: str, small: None) -> None:
    served = seeded(url)
    try:
        fill(served)
        hide(served)
        finish(served)
        parent = served.app_token("parent-a", "teen")
        before = answers(served, parent)
        put(served, "Encounter/long", **{**visit(True), "meta": {"security": [{"system": ACT, "code": "HIV"}]}})
        assert pending(served.parts.store, served) >= ROWS
        assert differences(answers(served, parent), before) == []
        while step(served):
            assert differences(answers(served, parent), before) == []
    finally:
        served.close()


def test_row_that_mentions_a_pending_one_is_withheld_meanwhile(url: str, small: None) -> None:
    served = seeded(url)
    try:
        fill(served)
        put(served, "DiagnosticReport/mentions", **REPORT, result=[{"reference": "Observation/long-3"}], conclusion="of both")
        parent = served.app_token("parent-a", "teen")
        hide(served)
        assert served.get(parent, "DiagnosticReport/mentions").status == 404
        finish(served)
        report = served.get(parent, "DiagnosticReport/mentions").json
        assert "result" not in report and "conclusion" not in report
    finally:
        served.close()


def test_shown_rows_come_back_only_with_their_own_labels(url: str, small: None) -> None:
    served = seeded(url)
    try:
        fill(served)
        hide(served)
        finish(served)
        parent = served.app_token("parent-a", "teen")
        hidden = answers(served, parent)
        put(served, "Encounter/long", **visit(False))
        first = answers(served, parent)
        assert first["Observation/long-3"] == hidden["Observation/long-3"]
        counts = [served.get(parent, "Observation?encounter=Encounter/long&_summary=count").json["total"]]
        while step(served):
            counts.append(served.get(parent, "Observation?encounter=Encounter/long&_summary=count").json["total"])
        assert counts[0] < ROWS and counts == sorted(counts) and counts[-1] == ROWS
    finally:
        served.close()


@pytest.mark.parametrize("bound", ("type", "all"))
def test_too_many_rows_to_name_are_hidden_by_patient_or_all(small: None, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(pending_relabeling, "MAX_IDS" if bound == "type" else "MAX_ROWS", 10)
    served = seeded()
    fill(served)
    parent, other = served.app_token("parent-a", "teen"), served.app_token("adult", "adult")
    count = "Observation?_summary=count"
    of_other = served.get(other, count).json["total"]
    hide(served)
    assert served.get(parent, count).json["total"] == 0
    assert served.get(other, count).json["total"] == of_other > 0
    assert (served.get(parent, "Encounter?_summary=count").json["total"] > 0) == (bound == "type")
    finish(served)
    assert served.get(parent, count).json["total"] > 0
    served.close()
