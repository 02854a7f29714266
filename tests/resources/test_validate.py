"""Valid resources pass, required elements are required, and no resource makes the validator raise."""

from __future__ import annotations

import gzip
import string
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server import jsontext
from fhir_server.resources import catalog, definitions
from fhir_server.resources.validate import check
from tests.examples import examples
from tests.resources.examples import VALID, example
from tests.sample_data import SYNTHEA, needs_samples, samples
from tests.served import ROOT


@pytest.mark.parametrize("name", VALID)
def test_a_hand_written_resource_is_valid(name: str) -> None:
    assert check(name, VALID[name]) == ()


@pytest.mark.parametrize("name", VALID)
def test_parsing_a_resource_from_text_keeps_it_valid(name: str) -> None:
    assert check(name, jsontext.parse(jsontext.dumps(VALID[name]))) == ()


def require_valid_entries(bundle: Any) -> int:
    """Require that a Bundle and each resource in it are valid.  Return the number of resources."""
    assert check("Bundle", bundle) == ()
    for entry in bundle["entry"]:
        assert check(entry["resource"]["resourceType"], entry["resource"]) == ()
    return len(bundle["entry"])


def test_every_seed_resource_is_valid() -> None:
    files = sorted((ROOT / "seed_bundles").glob("*.json"))
    assert sum(require_valid_entries(jsontext.parse(file.read_bytes())) for file in files) > 300


@needs_samples(SYNTHEA)
def test_every_synthea_resource_is_valid() -> None:
    assert sum(require_valid_entries(jsontext.parse(gzip.decompress(file.read_bytes()))) for file in samples(SYNTHEA)) > 2000


def required_elements() -> Iterator[tuple[str, str]]:
    """(type, required top-level element): every one that a hand-written resource holds."""
    for name, resource in VALID.items():
        for element in definitions.elements(name):
            path = element.path.split(".")
            if len(path) == 2 and element.min:
                base = path[1].removesuffix("[x]")
                held = [key for key in resource if key == base or (path[1] != base and key.startswith(base))]
                yield from ((name, key) for key in held)


@pytest.mark.parametrize(("name", "key"), sorted(required_elements()))
def test_missing_required_element_is_reported(name: str, key: str) -> None:
    resource = example(name)
    del resource[key]
    issues = check(name, resource)
    assert any(issue.code == "required" and issue.expression[0].startswith(f"{name}.{key[:3]}") for issue in issues)


@pytest.mark.parametrize("name", definitions.types())
def test_every_type_can_be_checked(name: str) -> None:
    """Each of its members compiles; with nonsense in all of them, all the compiled checks run."""
    members = {name.partition("[")[0] for name in _members(name)}
    issues = check(name, {"resourceType": name, **dict.fromkeys(sorted(members - {"resourceType"}), 7)})
    assert issues
    assert not any("is not an element" in issue.text for issue in issues)


def _members(name: str) -> Iterator[str]:
    for element in definitions.elements(name):
        path = element.path.split(".")
        if len(path) == 2 and not path[1].endswith("[x]"):
            yield path[1]
        elif len(path) == 2:
            yield from (path[1].removesuffix("[x]") + ref.code[0].upper() + ref.code[1:] for ref in element.types[:1])


def test_unknown_type_raises_key_error() -> None:
    with pytest.raises(KeyError):
        check("Nothing", {"resourceType": "Nothing"})
    with pytest.raises(KeyError):
        check("Period", {"resourceType": "Period"})


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, {"resourceType": ["Patient"]}])
def test_non_resource_input_is_an_issue(value: Any) -> None:
    assert check("Patient", value)


def test_excessive_nesting_is_an_issue() -> None:
    deep: dict[str, Any] = {"url": "x"}
    for _ in range(3000):
        deep = {"url": "x", "extension": [deep]}
    (issue,) = check("Patient", {"resourceType": "Patient", "extension": [deep]})
    assert "nested too deeply" in issue.text


def all_names() -> list[str]:
    found = {"resourceType", "_status", "_given"}
    for name in (*VALID, "Extension", "Reference", "CodeableConcept", "Quantity", "Period", "Attachment", "Timing"):
        for element in definitions.elements(name):
            last = element.path.split(".")[-1]
            base = last.removesuffix("[x]")
            found |= {base, *(base + ref.code[0].upper() + ref.code[1:] for ref in element.types if last != base)}
    return sorted(found)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["#", "#a", "2020-01-01", "Patient/1", "final", "http://unitsofmeasure.org", "a", Decimal("1.0"), "Patient"]),
)
names = st.one_of(st.sampled_from(all_names()), st.text(string.ascii_letters + "_[]", max_size=4))
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=25)


@settings(max_examples=examples(400, few=120))
@given(st.sampled_from(sorted(VALID)), st.dictionaries(names, anything, max_size=8))
def test_arbitrary_json_never_makes_the_validator_raise(name: str, body: dict[str, Any]) -> None:
    check(name, {**body, "resourceType": name})


@settings(max_examples=examples(400, few=120))
@given(st.data())
def test_arbitrary_json_in_valid_resource_never_makes_it_raise(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(VALID)))
    resource = example(name)
    node: Any = resource
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(anything)
    check(name, resource)


def test_the_examples_cover_every_declared_type() -> None:
    folder = Path(definitions.__file__).parent
    declared = {name for name in catalog() if (folder / f"{name.lower()}.py").exists()}
    assert declared == set(VALID)
