"""A class says that a caller sees the guards of a part only if all who see the row, and are admitted to the class, see them."""

from __future__ import annotations

import pytest

from fhir_server.consent.visibility_classes import SPECIFIC, VisibilityClass
from fhir_server.store import Row
from fhir_server.writing.guarded_entries import Classified, guarded_class

WRITTEN = 1000


def _row(*patients: str, data: str = "lab", labels: frozenset[str] = frozenset(), release_at: int = 0) -> Classified:
    return Row("Observation", "a", 1, WRITTEN, patients, 0, release_at, b""), VisibilityClass(data, labels)


@pytest.mark.parametrize(
    ("whole", "guard", "is_told"),
    [
        (_row("a"), _row("a"), True),
        (_row("a"), _row("a", "b"), True),
        (_row("a", "b"), _row("a"), False),
        (_row("a"), _row("b"), False),
        (_row("a"), _row(), False),
        (_row("a"), None, False),
        (_row(), _row(), True),
        (_row(), _row("a"), False),
        (_row(data="directory"), _row(), False),
        (_row("a"), _row(data="directory"), True),
        (_row("a"), _row(data="medication-definition", labels=frozenset({SPECIFIC})), False),
        (_row("a"), _row("a", release_at=WRITTEN), True),
        (_row("a"), _row("a", release_at=WRITTEN + 1), False),
        (_row("a", release_at=5000), _row("a", release_at=5000), True),
        (_row("a", release_at=5000), _row("a", release_at=5001), False),
    ],
)
def test_class_is_that_of_callers_who_see_each_guard(whole: Classified, guard: Classified | None, is_told: bool) -> None:
    found = guarded_class(whole, [whole[1]], [_row(*whole[0].patients, data=whole[1].data), guard] if is_told else [guard])
    assert (found is not None) is is_told


def test_class_has_the_labels_of_the_parts_and_of_the_guards() -> None:
    part, guard = VisibilityClass("lab", frozenset({"HIV"}), "note"), _row("a", data="visit", labels=frozenset({"MH"}))
    assert guarded_class(_row("a"), [part], [guard]) == VisibilityClass("lab", frozenset({"HIV", "MH"}), "note@visit/Observation")
    assert guarded_class(_row("a"), [], [guard]) == VisibilityClass("lab", frozenset({"MH"}), "*@visit/Observation")
