"""``fhir-server relabel`` page by page: no row is shown because the row from which it inherits has not had its turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fhir_server.maintenance import relabel
from fhir_server.store import IndexedRow, Store, Transaction
from tests.seeded import seeded
from tests.served import Served, store_url

ORDER = {
    "resourceType": "MedicationRequest", "id": "stale", "status": "active", "intent": "order", "subject": {"reference": "Patient/teen"},
    "medicationCodeableConcept": {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "161"}]},
    "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "MH"}]},
}  # fmt: skip
MESSAGE = {
    "resourceType": "Communication", "id": "stale", "status": "completed", "subject": {"reference": "Patient/teen"},
    "basedOn": [{"reference": "MedicationRequest/stale"}],
}  # fmt: skip


@pytest.fixture(params=("memory", "sqlite", "mongodb"))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = seeded(store_url(request.param, tmp_path))
    for row in (ORDER, MESSAGE):
        assert server.request(server.token(), "PUT", f"{row['resourceType']}/stale", body=row).status == 201
    # An earlier version of the code lists: it labeled the message for itself, and did not know the label of the order.
    server.run(server.parts.store.write(lambda tx: _set_class(tx, "MedicationRequest", "medication||")))
    yield server
    server.close()


async def _set_class(tx: Transaction, type: str, key: str) -> None:
    row = await tx.read_unfiltered(type, "stale")
    assert row is not None
    await tx.relabel(IndexedRow(msgspec.structs.replace(row, class_id=await tx.intern_class(key))))


class Watched:
    """A store that notes the class of the message after each transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen: list[str] = []

    async def write(self, job: Callable[[Transaction], Awaitable[Any]]) -> Any:
        result = await self._store.write(job)
        self.seen.append(await self._store.write(_class_of_message))
        return result


async def _class_of_message(tx: Transaction) -> str:
    row = await tx.read_unfiltered("Communication", "stale")
    assert row is not None
    return (await tx.classes())[row.class_id]


def test_relabeling_shows_no_heir_before_its_source(served: Served) -> None:
    store, parts = Watched(served.parts.store), served.parts
    report = served.run(relabel.relabel_store(store, parts.labeler, served.settings.base, parts.clock()))  # type: ignore[arg-type]
    assert set(store.seen) == {"message|MH|"} and report.changed > 0
    assert not served.run(relabel.relabel_store(parts.store, parts.labeler, served.settings.base, parts.clock())).changed


def test_a_single_pass_would_show_the_heir(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = relabel.LabelingContext

    def single(labeler: Any, base: str, now: int, keeps_labels: bool) -> Any:
        return exact(labeler, base, now, False)

    monkeypatch.setattr(relabel, "LabelingContext", single)
    store, parts = Watched(served.parts.store), served.parts
    served.run(relabel.relabel_store(store, parts.labeler, served.settings.base, parts.clock()))  # type: ignore[arg-type]
    assert "message||" in store.seen and store.seen[-1] == "message|MH|"
