"""The switchboard: leaks built into the running server on purpose, by the channels of the threat model.

Each entry of :data:`LEAKS` breaks one thing as a careless change might.  The generic twin run must notice every one; a leak
that it does not notice fails the build like a failing test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from fhir_server import eras, grant, http, intake, view
from fhir_server.consent import decide
from fhir_server.errors import Problem
from fhir_server.grant import Plan
from fhir_server.interactions import bundle, everything, read, search, write
from fhir_server.search import match
from fhir_server.search.filters import EVERYTHING, AllOf, AnyOf, Has, IdIs, Not, Present, RefersTo
from fhir_server.search.sight import Position, Sight, Window
from fhir_server.view import Seen, View, not_found

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Leak:
    """``channel`` of the threat model; ``stored``: the leak is in what is written, so worlds must be built with it."""

    name: str
    channel: str
    plant: Callable[[Patch], None]
    stored: bool = False


LEAKS: list[Leak] = []


def leak(channel: str, *, stored: bool = False) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        LEAKS.append(Leak(plant.__name__.replace("_", " "), channel, plant, stored))
        return plant

    return add


async def _unlimited(view: View, patients: frozenset[str] | None = None) -> Sight:
    """What nobody but the institution may see: every row (of these patients)."""
    return Sight((Window(patients, frozenset(range(len(await view._snapshot.classes()))), released=False),), view.now)


async def _of_record(view: View) -> Sight:
    return await _unlimited(view, view.plan.patients)


def _sighted(choose: Callable[[View], Any]) -> Callable[..., Any]:
    """Let a method of View see by another sight."""

    def with_sight(method: Any) -> Any:
        async def wrapped(self: View, type: str, *args: Any, **kwargs: Any) -> Any:
            sight = await choose(self)
            other = View(self._snapshot, self.plan, self.now)
            other._sight = lambda type, letters: sight  # type: ignore[method-assign]
            return await method(other, type, *args, **kwargs)

        return wrapped

    return with_sight


# 3.1 Counting, ordering, paging


@leak("C01")
def the_total_counts_the_record(patch: Patch) -> None:
    counted = _sighted(_of_record)(View.count)

    async def total(view: View, type: str, asked: Any, found: Any, *, whole: bool) -> int | None:
        return None if asked.total == "none" else int(await counted(view, type, asked.where))

    patch.setattr(search, "_total", total)


@leak("C01")
def an_estimated_total_is_the_store_s_own(patch: Patch) -> None:
    exact, counted = search._total, _sighted(_unlimited)(View.count)

    async def total(view: View, type: str, asked: Any, found: Any, *, whole: bool) -> int | None:
        return int(await counted(view, type, EVERYTHING)) if asked.total == "estimate" else await exact(view, type, asked, found, whole=whole)

    patch.setattr(search, "_total", total)


@leak("C02")
def a_summary_of_counts_counts_the_record(patch: Patch) -> None:
    patch.setattr(View, "count", _sighted(_of_record)(View.count))


@leak("C03")
def hidden_rows_are_taken_off_a_page_after_it_was_cut(patch: Patch) -> None:
    whole = _sighted(_of_record)(View.find)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        found, end = await whole(self, type, where, **how)
        shown = await self.shows(f"{seen.type}/{seen.id}" for seen in found)
        return [seen for seen in found if f"{seen.type}/{seen.id}" in shown], end

    patch.setattr(View, "find", find)


@leak("C04")
def a_next_link_promises_hidden_rows(patch: Patch) -> None:
    exact, counted = View.find, _sighted(_of_record)(View.count)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        found, end = await exact(self, type, where, **how)
        if end is None and found and how.get("after") is None and await counted(self, type, where) > len(found):
            end = Position(tuple(None for _ in how.get("sort", ())), found[-1].id)
        return found, end

    patch.setattr(View, "find", find)


@leak("C06")
def sort_keys_come_from_hidden_elements_too(patch: Patch) -> None:
    patch.setattr(match, "keys", lambda sort, sight, row: tuple(match._sort_value(key, row, _Any()) for key in sort))


class _Any(frozenset[int]):
    """The set of all classes."""

    def __contains__(self, _: object) -> bool:
        return True


@leak("C08")
def a_page_link_is_bound_to_what_is_hidden(patch: Patch) -> None:
    exact = search.binding

    def binding(view: View, *args: Any) -> bytes:
        return exact(view, *args) + repr(sorted((data, sorted(numbers)) for data, numbers in view.plan.classes.plain.items())).encode()

    patch.setattr(search, "binding", binding)
    patch.setattr(everything, "binding", binding)


# 3.2 Predicates as oracles


def _matching(patch: Patch, kinds: tuple[type, ...]) -> None:
    """Conditions of these kinds are asked of hidden entries too."""
    exact = match.matches

    def matches(filter: Any, row: Any, classes: Any) -> bool:
        return exact(filter, row, _Any() if isinstance(filter, kinds) else classes)

    patch.setattr(match, "matches", matches)


@leak("Q05")
def a_hidden_element_can_be_searched(patch: Patch) -> None:
    _matching(patch, (Has,))


@leak("Q04")
def missing_looks_at_hidden_elements(patch: Patch) -> None:
    _matching(patch, (Present,))


@leak("Q04")
def negation_looks_at_hidden_elements(patch: Patch) -> None:
    _matching(patch, (Not,))


@leak("Q01")
def a_search_that_finds_nothing_looks_again_without_sight(patch: Patch) -> None:
    exact, counted = View.find, _sighted(_of_record)(View.count)

    async def find(self: View, type: str, where: Any, **how: Any) -> Any:
        found = await exact(self, type, where, **how)
        if not found[0] and await counted(self, type, where):
            raise Problem("forbidden", "The search matches resources that may not be shown.")
        return found

    patch.setattr(View, "find", find)


@leak("Q08", stored=True)
def last_updated_is_the_stored_one(patch: Patch) -> None:
    patch.setattr(eras, "updates", lambda row: (eras._entry(row.updated, row.vclass),))


# 3.3 Direct access


def _refusing(patch: Patch, problem: Callable[[str, str], Problem]) -> None:
    exact = View._absent

    async def absent(self: View, type: str, id: str) -> Problem:
        stored = await self._snapshot.read(type, id, await _unlimited(self))
        return problem(type, id) if stored else await exact(self, type, id)

    patch.setattr(View, "_absent", absent)


@leak("R01")
def hidden_is_forbidden_rather_than_unknown(patch: Patch) -> None:
    _refusing(patch, lambda type, id: Problem("forbidden", "This caller may not read this resource."))


@leak("S01")
def hidden_is_worded_otherwise(patch: Patch) -> None:
    _refusing(patch, lambda type, id: Problem("not_found", f"{type}/{id} was not found."))


@leak("R01")
def hidden_and_deleted_is_gone(patch: Patch) -> None:
    exact = View._absent

    async def absent(self: View, type: str, id: str) -> Problem:
        versions = await self._snapshot.versions(type, id, await _unlimited(self))
        gone = versions and versions[-1].interaction == "delete"
        return Problem("gone", f"{type}/{id} has been deleted.") if gone else await exact(self, type, id)

    patch.setattr(View, "_absent", absent)


@leak("R04")
def the_version_is_the_stored_one(patch: Patch) -> None:
    exact = View._projected

    def projected(self: View, row: Any, *what: Any) -> Seen:
        seen = exact(self, row, *what)
        body = eras.restamped(seen.body, row.version, seen.updated) if seen.body else seen.body
        return msgspec.structs.replace(seen, version=row.version, body=body)

    patch.setattr(View, "_projected", projected)


@leak("R06")
def the_time_of_change_is_the_stored_one(patch: Patch) -> None:
    exact = View._projected
    patch.setattr(View, "_projected", lambda self, row, *what: msgspec.structs.replace(exact(self, row, *what), updated=row.updated))


@leak("R04")
def not_modified_is_judged_by_the_stored_version(patch: Patch) -> None:
    exact = read.read

    async def reading(view: View, request: Any, service: Any) -> Any:
        row = await view._snapshot.read(*request.path[:2], await _unlimited(view))
        given = request.headers.get("if-none-match")
        if row is not None and given is not None and http.etag_version(given) == str(row.version):
            return http.Response(304)
        return await exact(view, request, service)

    patch.setattr(read, "read", reading)
    _relook(patch, "read", reading)


def _relook(patch: Patch, code: str, look: Any) -> None:
    """Put another reading function in the table of interactions, which holds the old one by value."""
    from fhir_server.interactions import table

    for methods in table._BY_PLACE.values():
        for method, row in list(methods.items()):
            if row.code == code and row.look is not None:
                made = table._looking(row.code, row.method, row.shape, look)
                patch.setitem(methods, method, made)


@leak("R02")
def history_shows_hidden_versions(patch: Patch) -> None:
    async def history(self: View, type: str, id: str) -> list[Seen]:
        rows = await self._snapshot.versions(type, id, self._sight(type, "r"))
        if not rows:
            raise not_found(type, id)
        return await self._seen(await self._snapshot.versions(type, id, await _unlimited(self)))

    patch.setattr(View, "history", history)


@leak("R02")
def history_counts_versions_that_look_alike(patch: Patch) -> None:
    patch.setattr(view, "_renumbered", lambda versions: versions)


def _leaving(patch: Patch, kept: Callable[[Any], bool]) -> None:
    """Do not cut the paths that ``kept`` is true of."""
    exact = view._cut
    patch.setattr(view, "_cut", lambda row, *what: [path for path in exact(row, *what) if not kept(path)])


@leak("R11")
def references_to_hidden_rows_are_left_in(patch: Patch) -> None:
    exact = view._cut
    patch.setattr(view, "_cut", lambda row, admitted, shown: exact(row, admitted, {one.target for one in row.pointers}))


@leak("R12")
def tags_and_source_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "meta")


@leak("R10")
def hidden_elements_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: len(path) == 1)


@leak("R15")
def labelled_components_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "component")


@leak("R15")
def conclusions_about_hidden_results_are_left_in(patch: Patch) -> None:
    _leaving(patch, lambda path: path[0] == "conclusion")


@leak("R13")
def new_ids_count_what_is_stored(patch: Patch) -> None:
    exact = write.created

    async def created(view: View, tx: Any, writing: Any, request: Any, service: Any, draft: Any, id: str = "", *rest: Any) -> Any:
        return await exact(view, tx, writing, request, service, draft, id or f"n{await tx.count(draft.type, EVERYTHING, await _unlimited(view))}", *rest)

    patch.setattr(write, "created", created)


# 3.4 Assembly


@leak("A01")
def include_follows_references_as_stored(patch: Patch) -> None:
    exact = search._included

    async def included(view: View, asked: Any, found: Any, service: Any) -> Any:
        sight = await _unlimited(view)
        stored = [await view._snapshot.read(seen.type, seen.id, sight) for seen in found]
        bodies = [msgspec.structs.replace(seen, body=row.body) for seen, row in zip(found, stored, strict=True)]
        other = View(view._snapshot, view.plan, view.now)
        other._sight = lambda type, letters: sight  # type: ignore[method-assign]
        return await exact(other if asked.includes else view, asked, bodies, service)

    patch.setattr(search, "_included", included)


@leak("A02")
def revinclude_sees_everything(patch: Patch) -> None:
    exact, whole = View.reachable, _sighted(_unlimited)(View.reachable)

    async def reachable(self: View, type: str, where: Any, limit: int) -> Any:
        return await (exact if isinstance(where, IdIs) else whole)(self, type, where, limit)

    patch.setattr(View, "reachable", reachable)


@leak("A03")
def everything_means_everything(patch: Patch) -> None:
    patch.setattr(View, "belonging", _sighted(_unlimited)(View.belonging))


@leak("A08")
def batch_entries_are_read_by_the_institution(patch: Patch) -> None:
    exact = Plan.sight

    async def batched(value: Any, text: Any, place: int, request: Any, service: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(View, "_sight", lambda self, type, letters: replace(exact(self.plan, type, self.now, letters), windows=_OPEN))
            return await batch(value, text, place, request, service)

    batch = bundle._batched
    patch.setattr(bundle, "_batched", batched)


_OPEN = (Window(None, _Any(), released=False),)


@leak("A09")
def search_by_post_is_not_narrowed(patch: Patch) -> None:
    exact = search.search

    async def searching(view: View, request: Any, service: Any) -> Any:
        if request.method == "POST":
            sight = await _of_record(view)
            view._sight = lambda type, letters: sight  # type: ignore[method-assign]
        return await exact(view, request, service)

    _relook(patch, "search-type", searching)


# 3.5 Writes as oracles


@leak("W01")
def conditional_create_matches_hidden_rows(patch: Patch) -> None:
    exact = write._matching

    async def matching(view: View, type: str, condition: str, request: Any, service: Any) -> Any:
        other = View(view._snapshot, view.plan, view.now)
        sight = await _of_record(view)
        other._sight = lambda type, letters: sight  # type: ignore[method-assign]
        return await exact(other, type, condition, request, service)

    patch.setattr(write, "_matching", matching)


@leak("W06")
def a_reference_need_only_exist(patch: Patch) -> None:
    exact = View.shows

    async def require(view: View, *args: Any) -> None:
        sight = await _unlimited(view)
        view.shows = lambda targets: view._snapshot.visible(targets, lambda _: sight)  # type: ignore[method-assign]
        try:
            await checked(view, *args)
        finally:
            view.shows = exact.__get__(view)  # type: ignore[method-assign]

    checked = write.require_references
    patch.setattr(write, "require_references", require)


@leak("W03")
def an_update_of_a_hidden_row_is_a_conflict(patch: Patch) -> None:
    exact = write._current

    async def current(view: View, tx: Any, type: str, id: str) -> Any:
        seen, row = await exact(view, tx, type, id)
        if seen is None and row is not None:
            raise Problem("conflict", "This id is taken.")
        return seen, row

    patch.setattr(write, "_current", current)


@leak("R05")
def optimistic_locking_is_by_the_stored_version(patch: Patch) -> None:
    exact = write._current

    async def current(view: View, tx: Any, type: str, id: str) -> Any:
        seen, row = await exact(view, tx, type, id)
        return (msgspec.structs.replace(seen, version=row.version) if seen else seen), row

    patch.setattr(write, "_current", current)


@leak("W05")
def an_update_puts_the_stored_element_where_the_caller_sees_it(patch: Patch) -> None:
    exact = write._written

    async def written(view: View, tx: Any, row: Any, status: int, request: Any, service: Any) -> Any:
        answer = await exact(view, tx, row, status, request, service)
        return msgspec.structs.replace(answer, body=row.body) if answer.body and b"OperationOutcome" not in answer.body else answer

    patch.setattr(write, "_written", written)


# 3.6 Several people in one row


@leak("M06")
def being_named_opens_a_row(patch: Patch) -> None:
    exact = Plan._compile

    def compiled(self: Plan, type: str, letters: str) -> tuple[Window, ...]:
        windows = exact(self, type, letters)
        named = AnyOf(tuple(Has(param, RefersTo(self.names)) for param in ("performer", "asserter")))
        return (*windows, *(replace(one, patients=None, where=AllOf((one.where, named))) for one in windows[:1] if self.names))

    patch.setattr(Plan, "_compile", compiled)


def _unlabelled(patch: Patch, label: str) -> None:
    """Decide as if this label were on nothing."""
    exact = decide.permits
    patch.setattr(decide, "permits", lambda policy, actor, key: exact(policy, actor, replace(key, labels=key.labels - {label})))


@leak("M03")
def rows_of_several_patients_are_each_one_s(patch: Patch) -> None:
    _unlabelled(patch, "MIXED")


@leak("R02")
def results_not_yet_final_are_shown(patch: Patch) -> None:
    _unlabelled(patch, "HELD")


@leak("T14")
def a_release_to_come_counts_as_past(patch: Patch) -> None:
    patch.setattr(Plan, "released", property(lambda self: False))


@leak("S06")
def rows_that_must_name_the_caller_need_not(patch: Patch) -> None:
    patch.setattr(decide, "own_conditions", lambda policy, actor, data: None)


@leak("S06")
def single_rows_restricted_by_the_patient_are_shown(patch: Patch) -> None:
    patch.setattr(Plan, "_undenied", lambda self, type, narrowed: narrowed)


@leak("Q05", stored=True)
def index_entries_take_the_class_of_the_row(patch: Patch) -> None:
    patch.setattr(intake, "_class_at", lambda path, facets, whole: whole)


@leak("A13", stored=True)
def rows_of_a_sensitive_visit_do_not_inherit(patch: Patch) -> None:
    async def target(self: Any, type: str, id: str) -> None:
        return None

    patch.setattr(intake.Writing, "_target", target)


@leak("C08")
def the_plan_is_that_of_the_institution(patch: Patch) -> None:
    patch.setattr(grant.decide, "permits", lambda policy, actor, key: True)
