"""Scopes for one category of a resource type, which the user may grant in place of all Observations or Conditions.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters
The category codes are those of US Core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_server.smart.core.scopes import Scope, resource_scopes

_CONDITION: Final = "http://terminology.hl7.org/CodeSystem/condition-category"
_OBSERVATION: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_US_CORE: Final = "http://hl7.org/fhir/us/core/CodeSystem"
# resource type -> (system, code, label on the consent page)
_CATEGORIES: Final = {
    "Condition": (
        (_CONDITION, "problem-list-item", "Problem list"),
        (_CONDITION, "encounter-diagnosis", "Diagnoses made at visits"),
        (f"{_US_CORE}/condition-category", "health-concern", "Health concerns"),
    ),
    "Observation": (
        (_OBSERVATION, "laboratory", "Lab results"),
        (_OBSERVATION, "vital-signs", "Vital signs, such as blood pressure and weight"),
        (_OBSERVATION, "social-history", "Lifestyle, such as smoking"),
        (_OBSERVATION, "survey", "Questionnaire answers"),
        (f"{_US_CORE}/us-core-category", "sdoh", "Living conditions, such as housing, food and transportation"),
    ),
}


@dataclass(frozen=True, slots=True)
class CategoryScope:
    """A scope that covers one category of a type: its ``text`` as granted, and its ``label`` on the consent page."""

    text: str
    label: str


def narrower_scopes(requested: str) -> dict[str, tuple[CategoryScope, ...]]:
    """Return the requested scopes that the user may narrow, each with the category scopes to choose from.

    These are scopes for a whole type in SMART v2 syntax.  A scope is left out if the request also has a wildcard scope
    that covers the whole type.
    """
    scopes = resource_scopes(requested)
    return {
        scope.text: _category_scopes(scope)
        for scope in scopes
        if _can_narrow(scope) and not any(_is_wildcard_over(other, scope) for other in scopes)
    }


def _can_narrow(scope: Scope) -> bool:
    return scope.type in _CATEGORIES and scope.text == f"{scope.level}/{scope.type}.{scope.interactions}"


def _is_wildcard_over(other: Scope, scope: Scope) -> bool:
    return other.type == "*" and not other.query and bool(set(other.interactions) & set(scope.interactions))


def _category_scopes(scope: Scope) -> tuple[CategoryScope, ...]:
    return tuple(CategoryScope(f"{scope.text}?category={system}|{code}", label) for system, code, label in _CATEGORIES[scope.type])
