"""``DocumentReference/$docref``: which documents, in which order, and parameters that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.filled import served_with
from tests.served import Served

PATH = "DocumentReference/$docref?patient=docref-p"
LOINC = "http://loinc.org"


def document(
    id: str, code: str, date: str, period: tuple[str, str] | None = None, patient: str = "docref-p", **more: Any
) -> dict[str, Any]:
    context = {"context": {"period": dict(zip(("start", "end"), period, strict=True))}} if period else {}
    return {"resourceType": "DocumentReference", "id": id, "status": "current", "date": date,
            "subject": {"reference": f"Patient/{patient}"}, "type": {"coding": [{"system": LOINC, "code": code}]}, **context, **more,
            "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}]}  # fmt: skip


ROWS = (
    document("ccd-old", "34133-9", "2025-01-01T00:00:00Z"),
    document("ccd-new", "34133-9", "2026-01-01T00:00:00Z"),
    document("letter", "51852-2", "2025-06-01T00:00:00Z", ("2024-03-01", "2024-03-10")),
    document("of-other", "34133-9", "2026-05-01T00:00:00Z", patient="docref-q"),
)


PATIENTS = tuple({"resourceType": "Patient", "id": id} for id in ("docref-p", "docref-q"))
served = served_with(*PATIENTS, *ROWS)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["ccd-new", "letter"]),
        (f"&type={LOINC}|34133-9", ["ccd-new"]),
        ("&start=2024-01-01", ["ccd-new", "letter", "ccd-old"]),
        ("&start=2024-03-05&end=2024-12-31", ["letter"]),
        ("&start=2025-01-01&end=2025-12-31", ["ccd-old"]),
        ("&type=51852-2&type=34133-9&on-demand=false", ["ccd-new", "letter"]),
    ],
)
def test_documents_of_a_patient_newest_first(served: Served, query: str, found: list[str]) -> None:
    answer = served.get(served.token(), PATH + query)
    assert (answer.status, answer.ids(), answer.json["total"]) == (200, found, len(found))
    assert served.all_ids(served.token(), f"{PATH}{query}&_count=1") == found


def test_post_takes_a_codeable_concept(served: Served) -> None:
    kind = {"coding": [{"system": LOINC, "code": "34133-9"}, {"system": LOINC, "code": "51852-2"}]}
    parameter = [{"name": "patient", "valueId": "docref-p"}, {"name": "type", "valueCodeableConcept": kind}]
    body = {"resourceType": "Parameters", "parameter": parameter}
    assert served.request(served.token(), "POST", "DocumentReference/$docref", body=body).ids() == ["ccd-new", "letter"]


@pytest.mark.parametrize("query", [
    "", "?patient=docref-p&on-demand=true", "?patient=docref-p&profile=x", "?patient=a&patient=b", "?patient=a,b",
    "?patient=docref-p&start=2020-01-01,2025-01-01",
])  # fmt: skip
def test_what_is_not_served_is_refused(served: Served, query: str) -> None:
    assert served.get(served.token(), f"DocumentReference/$docref{query}").status == 400


def test_hidden_documents_and_patients_are_none(served: Served) -> None:
    feed, parent = served.token(), served.app_token("parent-a", "teen")
    path = "DocumentReference/$docref?patient=teen"
    before = served.get(parent, path)
    hidden = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    row = document("docref-hidden", "34133-9", "2026-11-01T00:00:00Z", patient="teen", meta=hidden)
    assert served.request(feed, "PUT", "DocumentReference/docref-hidden", body=row).status == 201
    assert before.status == 200 and served.get(parent, path).body == before.body
    assert "docref-hidden" in served.get(feed, path).ids()
    for absent in ("adult", "nobody"):
        assert served.get(parent, f"DocumentReference/$docref?patient={absent}").json["total"] == 0
    assert served.get(served.token(scope="system/DocumentReference.r"), path).status == 403
