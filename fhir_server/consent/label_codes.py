"""Labels from the codes of a resource (steps 3, 5 and 9 of docs/policy.md, "How a resource is labeled").

The table of elements says what a coded element counts for (docs/elements.md): ``kind``, ``detail`` or ``marks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_server.consent.code_reading import CodeReading, read
from fhir_server.consent.element_reading import ITEM, Value, item_of
from fhir_server.consent.element_rules import has_kind
from fhir_server.consent.labeling_run import LabelingRun
from fhir_server.consent.visibility_classes import HELD, UNCLASSIFIED
from fhir_server.jsontext import Path
from fhir_server.resources import statuses

CODED: Final = frozenset({"kind", "detail", "marks"})
"""The rules of coded elements."""
_SAYING: Final = frozenset({"coding", "display", "text"})


def read_codes(run: LabelingRun) -> None:
    """Step 3: codes of coded elements, with the words in their texts and displays."""
    for value in run.reading.coded:
        if value.rule == ITEM or (value.rule == "kind" and type(value.value) is dict and "reference" in value.value):
            run.kinds.append((value, None))
        elif value.rule in CODED:
            reading = read(run.codes, value.value)
            if value.rule == "kind":
                run.kinds.append((value, reading))
            _read_coded(run, value, reading)


def _read_coded(run: LabelingRun, value: Value, reading: CodeReading) -> None:
    if run.labeler.is_on_hold(reading):
        run.labels.add(HELD)
    unknown = value.rule == "detail" and is_unknown(reading, value.value) and not _decides_data_class(run, value, reading)
    labels = reading.labels | {UNCLASSIFIED} if unknown else reading.labels
    if value.up:
        run.label_part(item_of(value.path, value.up), labels)
    elif "extension" in value.path:
        run.add_part(value.part, labels)
    else:
        run.labels |= reading.labels
        run.possible |= reading.possible
        if unknown:
            run.add_part(value.part, {UNCLASSIFIED})


def is_unknown(reading: CodeReading, value: Any) -> bool:
    """Whether an element says something that no list knows: by a code, or in words without a code."""
    if reading.classified or reading.neutral or reading.administrative:
        return False
    return bool(reading.codes) or (not reading.labels and isinstance(value, dict) and not _SAYING.isdisjoint(value))


def read_status(run: LabelingRun) -> None:
    """Step 5: status."""
    if run.resource.get("status") in run.type.hidden_status:
        run.labels.add(HELD)
    for place in statuses.entered_in_error(run.resource):
        if place:
            run.label_part(place, {HELD})
        else:
            run.labels.add(HELD)


async def require_classification(run: LabelingRun) -> None:
    """Step 9: a resource or an item whose kind has an unknown code, or that does not say what it is, is unclassified."""
    known: dict[Path, list[bool]] = {(): []} if has_kind(run.type.name) else {}
    for value, reading in run.kinds:
        if value.rule == ITEM:
            known.setdefault(value.path, [])
            continue
        said = await _is_known_target(run, value.value) if reading is None else _is_known(run, value, reading)
        if said is not None:
            known.setdefault(item_of(value.path, value.up) if value.up else (), []).append(said)
    for path, answers in known.items():
        if answers and all(answers):
            continue
        if path:
            run.label_part(path, {UNCLASSIFIED})
        else:
            run.labels.add(UNCLASSIFIED)
    items = [path for path in known if path]
    if items and all(run.parts.labels(path) for path in items):
        # Nothing of it is ordinary: what remains would tell that there is something else.
        run.labels |= frozenset.intersection(*(run.parts.labels(path) for path in items)) or {UNCLASSIFIED}


def _is_known(run: LabelingRun, value: Value, reading: CodeReading) -> bool | None:
    """Whether a kind is known as ordinary or as sensitive; None if it says nothing."""
    if reading.classified or _decides_data_class(run, value, reading):
        return True
    return None if reading.neutral or reading.administrative else False


def _decides_data_class(run: LabelingRun, value: Value, reading: CodeReading) -> bool:
    """Whether the element gives the resource its data class: no list need name the code of a letter."""
    return value.path[0] in ("category", "type") and any(code.lower() in run.class_codes for _, code in reading.codes)


async def _is_known_target(run: LabelingRun, value: Mapping[str, Any]) -> bool:
    """Whether it is known what the resource that is referred to is (such as a Medication, contained or not)."""
    _, target = await run.target(value)
    return target is not None and UNCLASSIFIED not in target.key.labels
