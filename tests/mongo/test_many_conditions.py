"""Conditions with alternatives do not multiply the plans that MongoDB weighs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.search.filters import AllOf, AnyOf, DateIs, Filter, Has, Present, QuantityIs, TokenIs
from fhir_server.search.limits import MAX_CONDITIONS
from fhir_server.search.visibility import Visibility
from fhir_server.store.mongodb import translate
from fhir_server.store.mongodb.translate import access_paths
from tests.mongo.shared_mongod import fresh_url
from tests.store.samples import OBS, clause, visibility

REACHED = ("maxIndexedOrSolutionsReached", "maxIndexedAndSolutionsReached", "maxScansToExplodeReached")


def either(number: int) -> Filter:
    return AnyOf((Has("code", TokenIs("s", f"c{number}")), Has("code", TokenIs("t", f"c{number}"))))


ALTERNATIVES: dict[str, Filter] = {
    "codes": AllOf(tuple(either(number) for number in range(MAX_CONDITIONS))),
    "numbers": AllOf(
        tuple(AnyOf((Has("value", QuantityIs("gt", n, n, n)), Has("value", QuantityIs("lt", n, n, n)))) for n in range(MAX_CONDITIONS))
    ),
    "presence": AllOf(tuple(AnyOf((Present("code", "token"), Present(f"date{n}", "date"))) for n in range(MAX_CONDITIONS))),
    "with others": AllOf((Has("date", DateIs("ge", 5, 9)), *(either(number) for number in range(MAX_CONDITIONS)))),
}
CALLERS = {"anyone": visibility(clause()), "one patient": visibility(clause("p1"))}


@pytest.fixture(scope="module")
def resources() -> Iterator[Any]:
    client: MongoClient[dict[str, Any]] = MongoClient(fresh_url())
    made = client.get_default_database()["resources"]
    for field in ("tok", "num", "dat"):
        made.create_index([("type", 1), (f"{field}.p", 1), (f"{field}.v", 1)])
    made.insert_one({"_id": "x"})
    yield made
    client.close()


def limits_reached(resources: Any, where: Filter, seen: Visibility) -> set[str]:
    """The limits of the planner that the queries of a search reach."""
    plans = [resources.find(path.query).explain()["queryPlanner"] for path in access_paths(OBS, where, seen)]
    assert plans and all(REACHED[0] in plan for plan in plans)
    return {name for plan in plans for name in REACHED if plan[name]}


@pytest.mark.parametrize("seen", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("where", ALTERNATIVES.values(), ids=ALTERNATIVES)
def test_conditions_with_alternatives_do_not_multiply_plans(resources: Any, where: Filter, seen: Visibility) -> None:
    assert limits_reached(resources, where, seen) == set()


def test_planner_reports_plans_that_multiply(resources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "_MAX_ALTERNATIVES", MAX_CONDITIONS)
    assert limits_reached(resources, ALTERNATIVES["codes"], CALLERS["anyone"]) != set()
