"""Facts about conditions and visibilities that the translators of all stores share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fhir_server.search.filters import AllOf, Filter, Has, OfPatient, Present, RefersTo
from fhir_server.search.visibility import Visibility, VisibilityClause


def conjuncts(where: Filter) -> Iterator[Filter]:
    """Yield the conditions that must all hold for this one to hold."""
    if isinstance(where, AllOf):
        for part in where.parts:
            yield from conjuncts(part)
    else:
        yield where


def needed_conditions(where: Filter, clause: VisibilityClause) -> list[Filter]:
    """Return the conditions of a search and of a clause that must all hold."""
    patients = () if clause.patients is None else (OfPatient(clause.patients),)
    return [*conjuncts(where), *conjuncts(clause.where), *patients]


def narrowest_patients(needed: Sequence[Filter], clause: VisibilityClause) -> tuple[int, frozenset[str] | None]:
    """Return the index of the OfPatient condition to begin with, and its patients; (-1, None) without such a condition.

    It is the one of the fewest patients among those that name only patients of the clause: a search for another person's rows
    must not look into that person's record, or its length could be measured.
    """
    owned = [
        (index, part.patients)
        for index, part in enumerate(needed)
        if isinstance(part, OfPatient) and (clause.patients is None or part.patients <= clause.patients)
    ]
    return min(owned, key=lambda owner: len(owner[1])) if owned else (-1, None)


def effective_clauses(visibility: Visibility) -> tuple[VisibilityClause, ...]:
    """Return the clauses without repetitions and without those that admit no row."""
    admitting = [clause for clause in visibility.clauses if clause.classes and (clause.patients is None or clause.patients)]
    return tuple(dict.fromkeys(admitting))


def refers_to(param: str, among: frozenset[str] | None) -> Filter:
    """Return the condition that a row refers to one of these by ``param`` (None: to anything)."""
    return Present(param, "reference") if among is None else Has(param, RefersTo(among))


def after_prefix(prefix: str) -> str | None:
    """Return the least string greater than all strings that start with ``prefix``; None if there is none."""
    shortened = prefix.rstrip("\U0010ffff")
    if not shortened:
        return None
    following = ord(shortened[-1]) + 1
    return shortened[:-1] + chr(0xE000 if following == 0xD800 else following)  # no text contains surrogates
