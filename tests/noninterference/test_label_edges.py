"""Each reference through which labels are inherited hides the row that refers to a sensitive one, stored or contained."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from fhir_server.resources import catalog
from tests.noninterference.label_edges import CHAINS, EDGES, Edge, Records, without_edge
from tests.noninterference.planted_leaks import Patch


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def records(runner: asyncio.Runner) -> Records:
    made = Records()
    runner.run(made.open())
    return made


def require_hidden(edge: Edge, ordinary: list[bytes | None], sensitive: list[bytes | None]) -> None:
    """The limited backend sees the row that refers to the ordinary row; nobody sees the one that refers to the sensitive row."""
    assert ordinary[0] is not None, "the control is not seen"
    if edge.source == "PractitionerRole":  # a person's role may be cut from the row instead
        sensitive = [body if body and b"PractitionerRole/" in body else None for body in sensitive]
    if edge.heir == "Immunization":  # parents see vaccinations of every category
        sensitive = sensitive[:1]
    assert set(sensitive) == {None}


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_row_that_refers_to_a_sensitive_row_is_hidden(edge: Edge, records: Records, runner: asyncio.Runner) -> None:
    require_hidden(edge, *(runner.run(records.of_edge(edge, sensitive)) for sensitive in (False, True)))


@pytest.mark.parametrize("first", sorted({chain.first for chain in CHAINS}), ids=str)
def test_contained_row_lends_the_labels_of_what_it_refers_to(first: Edge, records: Records, runner: asyncio.Runner) -> None:
    for chain in [chain for chain in CHAINS if chain.first == first]:
        ordinary, stored, contained = (
            runner.run(records.of_chain(chain, sensitive, inside)) for sensitive, inside in ((False, True), (True, False), (True, True))
        )
        for found in (stored, contained):
            require_hidden(Edge(first.heir, first.path, chain.second.source), ordinary, found)


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_missing_label_edge_is_detected(edge: Edge, runner: asyncio.Runner, monkeypatch: Patch) -> None:
    """Leave the edge out of the declarations: the row is shown, so the test of the edge would fail."""
    declared = without_edge(catalog(), edge)
    for module in [module for name, module in sys.modules.items() if name.startswith("fhir_server.")]:
        if getattr(module, "catalog", None) is catalog:
            monkeypatch.setattr(module, "catalog", lambda: declared)
    records = Records()
    runner.run(records.open())
    assert runner.run(records.of_edge(edge, sensitive=True))[0] is not None
