"""Scopes for part of a resource type: the categories a person may choose in place of all Observations or Conditions.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
with the category codes of US Core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_server.smart.core.scopes import Scope, resource_scopes

_CONDITION: Final = "http://terminology.hl7.org/CodeSystem/condition-category"
_OBSERVATION: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_US_CORE: Final = "http://hl7.org/fhir/us/core/CodeSystem"
# resource type -> (system, code, words)
_CATEGORIES: Final = {
    "Condition": (
        (_CONDITION, "problem-list-item", "Problem list"),
        (_CONDITION, "encounter-diagnosis", "Diagnoses made at visits"),
        (f"{_US_CORE}/condition-category", "health-concern", "Health concerns"),
    ),
    "Observation": (
        (_OBSERVATION, "laboratory", "Lab results"),
        (_OBSERVATION, "vital-signs", "Vital signs such as blood pressure and weight"),
        (_OBSERVATION, "social-history", "Living habits such as smoking"),
        (_OBSERVATION, "survey", "Answers to questionnaires"),
        (f"{_US_CORE}/us-core-category", "sdoh", "Circumstances such as housing, food and transport"),
    ),
}


@dataclass(frozen=True, slots=True)
class CategoryScope:
    """A scope that covers one category of a type, literally as it would be granted, and its name for people."""

    text: str
    words: str


def narrower_scopes(asked: str) -> dict[str, tuple[CategoryScope, ...]]:
    """For each scope in a request that the person may have narrowed to categories: the scopes to choose from.

    Only whole-type scopes in the newer syntax, of an app that asks for no wildcard that would give the rest all the same.
    """
    scopes = resource_scopes(asked)
    return {scope.text: _parts(scope) for scope in scopes if _divisible(scope) and not any(_swallows(one, scope) for one in scopes)}


def _divisible(scope: Scope) -> bool:
    return scope.type in _CATEGORIES and scope.text == f"{scope.level}/{scope.type}.{scope.interactions}"


def _swallows(one: Scope, scope: Scope) -> bool:
    return one.type == "*" and not one.query and bool(set(one.interactions) & set(scope.interactions))


def _parts(scope: Scope) -> tuple[CategoryScope, ...]:
    return tuple(CategoryScope(f"{scope.text}?category={system}|{code}", words) for system, code, words in _CATEGORIES[scope.type])
