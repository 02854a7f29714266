"""What a request has worked on leaves memory with its answer, without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fhir_server.allocator import configure_allocator
from fhir_server.errors import Problem
from fhir_server.writing.draft import Draft
from tests.served import Served, make_store, store_url

GOOD: dict[str, Any] = {"resourceType": "Basic", "code": {"text": "x"}}
BAD: dict[str, Any] = {**GOOD, "subject": {"reference": "Patient/nobody"}}


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def drafts() -> int:
    return sum(isinstance(one, Draft) for one in gc.get_objects())


def transaction(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"request": {"method": "POST", "url": "Basic"}, "resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_refused_transaction_leaves_nothing(store: str, tmp_path: Path) -> None:
    url = store_url(store, tmp_path)
    make_store(url)
    server = Served(url, seeds=False)
    token = server.token()
    with without_collector():
        before = drafts()
        for kind in ("transaction", "batch"):
            for _ in range(3):
                answer = server.request(token, "POST", "", body={**transaction(*[GOOD] * 5, BAD), "type": kind})
                assert answer.status == (422 if kind == "transaction" else 200)
            server.request(token, "POST", "Basic", body=GOOD)  # the writer keeps its last job
            assert drafts() - before <= 1, kind
    server.close()


def test_without_letting_go_refused_transactions_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    monkeypatch.setattr(Problem, "let_go", lambda self: None)
    with pytest.raises(AssertionError):
        test_a_refused_transaction_leaves_nothing("sqlite", tmp_path)


def test_a_problem_lets_go_of_those_before_it_too() -> None:
    held = []

    def fail() -> None:
        kept = GOOD.copy()
        held.append(kept)
        raise Problem("invalid", "first")

    try:
        try:
            fail()
        except Problem:
            raise Problem("invalid", "second") from None
    except Problem as problem:
        first = problem.__context__
        assert first is not None and first.__traceback__ is not None
        problem.let_go()
        assert first.__traceback__ is None and problem.__traceback__ is None
        assert len(gc.get_referrers(held[0])) == 1


def test_the_allocator_is_only_a_matter_of_settings() -> None:
    configure_allocator()
    assert len(bytes(50_000_000)) == 50_000_000
