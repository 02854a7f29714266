"""Compiled paths agree with fhirpathpy, a complete FHIRPath engine, for every parameter with a value in the samples."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.models import models

from fhir_server import jsontext
from fhir_server.resources import definitions
from fhir_server.search.element_paths import compile_walk
from fhir_server.search.expression import Member, TrueUnlessFalse, WhereEquals, WhereRefersTo, parse
from fhir_server.search.index import UNSUPPORTED_KINDS, parameters
from tests.sample_data import SYNTHEA, needs_samples, samples
from tests.search.samples import RESOURCES
from tests.served import ROOT


def walked(type: str, code: str, resource: dict[str, Any]) -> list[tuple[Any, tuple[str | int, ...]]]:
    parameter = parameters(type)[code]
    found: list[Any] = []
    for branch in parse(parameter.definition.expression):
        for name, walk in compile_walk(branch, parameter.kind.suffixes, lambda value, path, out: out.append((value, path))):
            if name in resource:
                walk(resource[name], (), found)
    return found


def oracle(expression: str, resource: dict[str, Any]) -> list[Any]:
    """Evaluate the expression with fhirpathpy, which supports ofType() but not resolve()."""
    text = re.sub(r"\(([\w.]+) as (\w+)\)", r"\1.ofType(\2)", expression).replace(".as(", ".ofType(")
    text = re.sub(r"\.where\(resolve\(\) is (\w+)\)", r".where(type = '\1' or reference.matches('(^|/)\1/[^/]+$'))", text)
    # fhirpathpy returns a null of a JSON list as a value.  Such a null only aligns an extension.
    return [value for value in fhirpathpy.evaluate(resource, text, model=models["r4"]) if value is not None]


# fhirpathpy can evaluate every R4 expression on the samples, so each is compared.
def cases() -> Iterator[Any]:
    for place, resource in enumerate(RESOURCES):
        for code in parameters(resource["resourceType"]):
            yield pytest.param(resource, code, id=f"{place}-{resource['resourceType']}-{code}")


def agree(resource: dict[str, Any], code: str) -> int:
    """Check that both return the same values, and return their number."""
    type = resource["resourceType"]
    expression = parameters(type)[code].definition.expression
    expected = [value for value in oracle(expression, resource) if value is not False or "exists()" not in expression]
    assert sorted(map(repr, (value for value, _ in walked(type, code, resource)))) == sorted(map(repr, expected)), (type, code)
    return len(expected)


@pytest.mark.parametrize(("resource", "code"), list(cases()))
def test_compiled_path_matches_fhirpath(resource: dict[str, Any], code: str) -> None:
    agree(resource, code)


def agreements(bundle: dict[str, Any]) -> int:
    """Check the first three resources of each type in a Bundle, and return the number of values found."""
    seen: dict[str, int] = {}
    found = 0
    for entry in bundle["entry"]:
        type = entry["resource"]["resourceType"]
        seen[type] = seen.get(type, 0) + 1
        if seen[type] <= 3:
            found += sum(agree(entry["resource"], code) for code in parameters(type))
    return found


def test_compiled_path_matches_fhirpath_on_a_seed_record() -> None:
    assert agreements(jsontext.parse((ROOT / "seed_bundles" / "30-teen.json").read_bytes())) > 100


@needs_samples(SYNTHEA)
def test_compiled_path_matches_fhirpath_on_synthea_records() -> None:
    assert agreements(jsontext.parse(gzip.decompress(samples(SYNTHEA)[0].read_bytes()))) > 100


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_value_is_at_its_reported_path(resource: dict[str, Any]) -> None:
    type, seen = resource["resourceType"], 0
    for code, parameter in parameters(type).items():
        for value, path in walked(type, code, resource):
            node: Any = resource
            for step in path:
                node = node[step]
            assert parameter.flag or node == value
            seen += 1
    assert seen or resource["id"] == "p3"


def test_samples_cover_every_step_type() -> None:
    steps = {
        type(step)
        for resource in RESOURCES
        for code, parameter in parameters(resource["resourceType"]).items()
        if walked(resource["resourceType"], code, resource)
        for branch in parse(parameter.definition.expression)
        for step in branch
    }
    assert steps == {Member, WhereEquals, WhereRefersTo, TrueUnlessFalse}


def test_every_r4_search_expression_compiles() -> None:
    compiled_ = 0
    for type in definitions.types():
        for parameter in parameters(type).values():
            assert parameter.definition.kind not in UNSUPPORTED_KINDS
            for branch in parse(parameter.definition.expression):
                assert compile_walk(branch, parameter.kind.suffixes, lambda value, path, out: None)
                compiled_ += 1
    assert compiled_ > 1500


OUTSIDE = [
    "A.b.first()", "A.b[0]", "A.b.where(x > 1)", "A.b.where(hasExtension('u'))", "A.b + A.c", "A.b |", "'x'", "A as B",
    "A.b.exists() and A.c != false",
]  # fmt: skip


@pytest.mark.parametrize("expression", OUTSIDE)
def test_expression_outside_the_subset_raises_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match="subset"):
        parse(expression)
