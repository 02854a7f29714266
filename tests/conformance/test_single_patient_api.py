"""Groups 10 and 12 of (g)(10): search, read and includes by a patient's app, without the profiles of US Core.

``single_patient.yaml`` lists the searches of each type and how each parameter reads a resource.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.patient_app import INCLUDES, OTHER, PATIENT, SEARCHED_TYPES, SEARCHES, UNSUPPORTED, Record, seeded_ids
from tests.conformance.queries import (
    find_ids,
    ids_of,
    included_names,
    matching_ids,
    nearby_instants,
    references,
    rows_with_values,
    variants,
)
from tests.conformance.reference_search import escape
from tests.ehr.environment import Ehr
from tests.served import store_url


def searches_with(*kinds: str) -> pytest.MarkDecorator:
    """The searches that have a parameter of one of these kinds."""
    some = [(type, names) for type, names in SEARCHES if any(SEARCHED_TYPES[type].readings[name].kind in kinds for name in names)]
    return pytest.mark.parametrize("type, names", some, ids=[f"{type}-{'+'.join(names)}" for type, names in some])


every_search = searches_with("token", "string", "reference", "canonical", "date")
every_type = pytest.mark.parametrize("type", SEARCHED_TYPES)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    ehr = Ehr(store_url("sqlite", tmp_path_factory.mktemp("single-patient")))
    yield Record(ehr)
    ehr.close()


# the test resources


@every_type
def test_group_10_12_each_type_returns_own_resources_and_none_of_others(record: Record, type: str) -> None:
    own, written = set(ids_of(record.own_rows(type))), set(ids_of(record.all_rows[type]))
    assert seeded_ids(type, PATIENT) <= own <= written and not own & seeded_ids(type, OTHER)
    assert len(own) >= (1 if type == "Patient" else 2)
    assert (own == written) is (type in ("Location", "Medication", "Organization", "Practitioner", "PractitionerRole"))
    name = SEARCHED_TYPES[type].first
    assert not name or find_ids(record, type, {name: OTHER}) == []


@every_type
def test_group_10_12_search_results_equal_readable_resources(record: Record, type: str) -> None:
    own = {row["id"]: row for row in record.own_rows(type)}
    for id in ids_of(record.all_rows[type]):
        answer = record.served.get(record.token, f"{type}/{id}")
        assert answer.status == (200 if id in own else 404)
        assert id not in own or answer.json == own[id]


@every_type
def test_group_10_12_referenced_resources_are_readable(record: Record, type: str) -> None:
    named = {name for row in record.own_rows(type) for name in references(row)}
    for name in named:
        assert record.served.get(record.token, name).status == 200, name


@every_search
def test_each_search_has_matching_and_nonmatching_resources(record: Record, type: str, names: tuple[str, ...]) -> None:
    known = rows_with_values(record, type, names)
    assert known and all(row["id"] in matching_ids(record, type, own) for row, own in known)
    apart = [
        own
        for row, own in known
        for own in variants(record, type, row, own)
        if len(matching_ids(record, type, own)) < len(record.own_rows(type))
    ]
    assert apart or names == ("patient",)


# searches


@every_search
def test_group_10_12_search_returns_exactly_the_matching_resources(record: Record, type: str, names: tuple[str, ...]) -> None:
    for row, own in rows_with_values(record, type, names):
        for asked in variants(record, type, row, own):
            assert sorted(find_ids(record, type, asked)) == matching_ids(record, type, asked), asked


@every_search
def test_group_10_12_get_post_and_all_patient_forms_return_the_same(record: Record, type: str, names: tuple[str, ...]) -> None:
    for _, own in rows_with_values(record, type, names):
        plain = find_ids(record, type, own)
        assert find_ids(record, type, own, post=True) == plain
        if "patient" in own:
            for name in (f"Patient/{PATIENT}", f"{record.base}/Patient/{PATIENT}"):
                assert (
                    find_ids(record, type, own | {"patient": name}) == find_ids(record, type, own | {"patient": name}, post=True) == plain
                )


@searches_with("token")
def test_group_10_12_comma_separated_values_match_any_of_them(record: Record, type: str, names: tuple[str, ...]) -> None:
    readings = SEARCHED_TYPES[type].readings
    for name in (name for name in names if readings[name].kind == "token"):
        values = list(dict.fromkeys(value for row in record.own_rows(type) for value in readings[name].values(row)))
        rests = {str(own | {name: ""}): own for _, own in rows_with_values(record, type, names)}
        for own in rests.values():
            meet = {id for value in values for id in matching_ids(record, type, own | {name: value})}
            several = [(key, ",".join(map(escape, values)) if key == name else escape(value)) for key, value in own.items()]
            assert sorted(ids_of(record.search(type, several))) == sorted(meet)


@pytest.mark.parametrize("name", ["status", "lifecycle-status", "clinical-status", "intent"])
def test_group_10_12_listing_all_statuses_returns_all_results(record: Record, name: str) -> None:
    types = [type for type, kind in SEARCHED_TYPES.items() if name in kind.readings]
    assert types
    for type in types:
        statuses = {value for row in record.own_rows(type) for value in SEARCHED_TYPES[type].readings[name].values(row)}
        assert len(statuses) > 1, type
        again = record.search(type, [("patient", PATIENT), (name, ",".join(sorted(statuses)))])
        assert ids_of(again) == ids_of(record.own_rows(type))


def test_group_10_12_escaped_comma_does_not_split_the_value(record: Record) -> None:
    for type, name, whole, parts in (
        ("Location", "name", "Imaging Centre, North", {"sp-north", "sp-south", "sp-shop"}),
        ("Location", "address", "12 Élysée Street, Floor 2", {"sp-north", "sp-shop"}),
        ("Organization", "name", "Chen, Rivera & Partners", {"sp-practice", "sp-rivera"}),
        ("Observation", "code", "BP,HOME", {"sp-home-count"}),
    ):
        assert len(find_ids(record, type, {name: whole})) == 1
        assert set(ids_of(record.search(type, [(name, whole.replace(", ", ","))]))) == parts


# dates


@searches_with("date")
def test_group_10_12_date_prefixes_compare_dates_as_intervals(record: Record, type: str, names: tuple[str, ...]) -> None:
    name = next(name for name in names if SEARCHED_TYPES[type].readings[name].kind == "date")
    for row, own in rows_with_values(record, type, names):
        for instant in nearby_instants(record, type, name, row):
            for prefix in ("", "gt", "ge", "lt", "le"):
                asked = own | {name: prefix + instant}
                assert sorted(find_ids(record, type, asked)) == matching_ids(record, type, asked), asked


@searches_with("date")
def test_group_10_12_two_date_bounds_match_their_intersection(record: Record, type: str, names: tuple[str, ...]) -> None:
    name = next(name for name in names if SEARCHED_TYPES[type].readings[name].kind == "date")
    for row, own in rows_with_values(record, type, names):
        early, *_, late = sorted(nearby_instants(record, type, name, row))
        bounds = [own | {name: f"gt{early}"}, own | {name: f"lt{late}"}]
        both = set(matching_ids(record, type, bounds[0])) & set(matching_ids(record, type, bounds[1]))
        asked = [*((key, escape(value)) for key, value in bounds[0].items()), (name, f"lt{late}")]
        for post in (False, True):
            assert set(ids_of(record.search(type, asked, post=post))) == both


# pages, includes, the CapabilityStatement


def test_group_10_12_pages_contain_each_resource_once(record: Record) -> None:
    whole = ids_of(record.own_rows("Observation"))
    assert len(whole) > 20 and len(set(whole)) == len(whole)
    for post in (False, True):
        assert ids_of(record.search("Observation", [("patient", PATIENT), ("_count", "3")], post=post)) == whole


@pytest.mark.parametrize("type, name, element", INCLUDES)
def test_group_10_12_include_returns_referenced_resources(record: Record, type: str, name: str, element: str) -> None:
    named = {row[element]["reference"].removeprefix(f"{record.base}/") for row in record.own_rows(type) if element in row}
    first = SEARCHED_TYPES[type].first
    entries = record.entries(type, [*([(first, PATIENT)] if first else []), ("_include", f"{type}:{name}")])
    assert named and included_names(entries) == named


@pytest.mark.parametrize("type", [type for type, kind in SEARCHED_TYPES.items() if kind.provenance])
def test_group_10_12_revinclude_returns_provenance_of_matches(record: Record, type: str) -> None:
    first = [(SEARCHED_TYPES[type].first, PATIENT), ("_revinclude", "Provenance:target")]
    entries = record.entries(type, first)
    matches = {f"{type}/{id}" for id in ids_of(record.own_rows(type))}
    assert {f"{type}/{entry['resource']['id']}" for entry in entries if entry["search"]["mode"] == "match"} == matches
    about = {row["id"] for row in record.own_rows("Provenance") if matches & {target["reference"] for target in row["target"]}}
    assert about >= {f"sp-{type}-{PATIENT}"} and f"sp-{type}-{OTHER}" in ids_of(record.other_rows("Provenance"))
    assert included_names(entries) == {f"Provenance/{id}" for id in about}


def test_group_10_12_capability_statement_lists_types_and_parameters(record: Record) -> None:
    answer = record.served.get(None, "metadata")
    statement = answer.json
    assert (answer.status, statement["resourceType"], statement["fhirVersion"]) == (200, "CapabilityStatement", "4.0.1")
    assert {"json", "application/fhir+json"} & set(statement["format"])
    listed = {one["type"]: one for one in statement["rest"][0]["resource"]}
    for type, kind in SEARCHED_TYPES.items():
        assert {"read", "search-type"} <= {one["code"] for one in listed[type]["interaction"]}
        parameters = {one["name"] for one in listed[type]["searchParam"]}
        assert set(kind.readings) <= parameters
        assert not kind.provenance or "Provenance:target" in listed[type]["searchRevInclude"]
    for type, name in UNSUPPORTED:
        assert name not in {one["name"] for one in listed[type]["searchParam"]}
    for type, name, _ in INCLUDES:
        assert f"{type}:{name}" in listed[type]["searchInclude"]
