"""Decisions match the tables of docs/policy.md, and every policy obeys general laws."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.consent.decision import Actor, may_write, own_conditions, permits, redactable, released_only
from fhir_server.consent.policy import ACTORS, FOLDER, ActorKind, Policy, _compile, _layers, _merge, load
from fhir_server.consent.visibility_classes import LABELS, VisibilityClass

OPTUM, SSM, STRICT = load("optum"), load("ssm"), load("strict")
SHIPPED = {"optum": OPTUM, "ssm": SSM, "strict": STRICT}


def actor_of(code: str, *levels: str, clearance: frozenset[str] = frozenset()) -> Actor:
    return Actor(ActorKind(code), frozenset(levels), clearance)


STANDARD, FULL = actor_of("PA", "standard"), actor_of("PA", "full")
PATIENT_CLASS = (actor_of("AS"), actor_of("MS"), actor_of("PC"), actor_of("PT"), actor_of("PX"), actor_of("PR"), STANDARD, FULL,
                 actor_of("PA", "scheduling"), actor_of("PA", "billing"))  # fmt: skip
EVERYBODY = (*PATIENT_CLASS, actor_of("CT"), actor_of("BG"), actor_of("BO"), actor_of("AU"), actor_of("LP"), actor_of("LB"), actor_of("BE"),
             actor_of("BE", clearance=frozenset({"HIV"})))  # fmt: skip

keys = st.builds(
    VisibilityClass,
    st.sampled_from(sorted(OPTUM.classes)),
    st.frozensets(st.sampled_from(sorted(LABELS)), max_size=4),
    st.sampled_from(["", *sorted({name for names in OPTUM.redactions.values() for name in names})]),
)
policies = st.sampled_from(list(SHIPPED.values()))


def sees(policy: Policy, actor: Actor, text: str) -> bool:
    return permits(policy, actor, VisibilityClass.parse(text))


CELLS = [
    # actor, class, optum, ssm, strict
    (actor_of("AS"), "lab|STD|", True, True, False), (actor_of("AS"), "lab||", True, True, True),
    (actor_of("AS"), "medication|MH|", True, True, True),
    (actor_of("AS"), "visit|MH|", True, True, True), (actor_of("AS"), "condition|PHYHOLD|", False, False, False),
    (actor_of("AS"), "lab|HELD|", False, False, False), (actor_of("AS"), "note|PSYNOTE|", False, False, False),
    (actor_of("AS"), "lab|UNCLASSIFIED|", True, True, True), (actor_of("AS"), "visit|MIXED|", False, False, False),
    (actor_of("AS"), "lab|MC|", True, True, True),
    (actor_of("PC"), "lab|STD|", True, False, False), (actor_of("PC"), "visit|SUD|", True, False, False),
    (actor_of("PC"), "lab||", True, True, True),
    (actor_of("PC"), "visit|MC|", False, False, False), (actor_of("PC"), "medication|MH|", True, False, False),
    (actor_of("PC"), "lab|UNCLASSIFIED|", True, False, False), (actor_of("PC"), "immunization||", True, True, True),
    (actor_of("PC"), "lab|GENETIC|", True, True, True), (actor_of("PC"), "billing|MC|", False, False, False),
    (actor_of("PT"), "lab||", True, True, False), (actor_of("PT"), "lab|HIV|", False, False, False),
    (actor_of("PT"), "lab|PREG|", False, False, False),
    (actor_of("PT"), "lab|UNCLASSIFIED|", False, False, False), (actor_of("PT"), "lab|UNREAD|", False, False, False),
    (actor_of("PT"), "letter|UNREAD|", True, True, True), (STANDARD, "letter|UNREAD|", True, True, True),
    (STANDARD, "lab|UNREAD|", False, False, False), (actor_of("PC"), "note|UNREAD|", True, False, False),
    (actor_of("PC"), "letter|UNREAD|", True, True, True), (FULL, "note|UNREAD|", True, False, False),
    (actor_of("BE"), "letter|UNREAD|", False, False, False), (actor_of("AS"), "note|UNREAD|", True, True, True),
    (actor_of("PT"), "medication||", True, True, False),
    (actor_of("PT"), "medication|MH|", False, False, False), (actor_of("PT"), "visit||", True, True, False),
    (actor_of("PT"), "visit|SEXAB|", False, False, False), (actor_of("PT"), "visit|UNCLASSIFIED|", False, False, False),
    (actor_of("PT"), "visit||reasonCode", False, False, False), (actor_of("PT"), "visit||text", False, False, False),
    (actor_of("PT"), "immunization||", True, True, True), (actor_of("PT"), "immunization|UNCLASSIFIED|", True, True, False),
    (actor_of("PT"), "immunization||encounter", False, False, False), (actor_of("PT"), "immunization|MC|", False, False, False),
    (actor_of("PT"), "billing||", True, True, True), (actor_of("PT"), "billing|STD|", False, False, False),
    (actor_of("PT"), "coverage||", True, True, True), (actor_of("PT"), "letter||", True, True, True),
    (actor_of("PT"), "letter|MH|", False, False, False),
    (actor_of("PT"), "endoflife||", True, True, True), (actor_of("PT"), "demographics||", True, True, True),
    (actor_of("PT"), "demographics||telecom", False, False, False), (actor_of("PT"), "condition||", False, False, False),
    (actor_of("PT"), "note||", False, False, False), (actor_of("PT"), "social||", False, False, False),
    (actor_of("PT"), "survey||", False, False, False),
    (actor_of("PT"), "procedure||", False, False, False), (actor_of("PT"), "allergy||", True, True, False),
    (actor_of("PT"), "allergy|HIV|", False, False, False), (actor_of("PT"), "lab|GENETIC|", True, True, False),
    (actor_of("PT"), "directory||", True, True, True), (actor_of("PT"), "audit||", True, True, True),
    (actor_of("PX"), "demographics||", False, False, False), (actor_of("PX"), "billing||", False, False, False),
    (actor_of("PX"), "immunization||", False, False, False),
    (STANDARD, "lab||", True, True, True), (STANDARD, "lab|HIV|", False, False, False), (STANDARD, "note||", False, False, False),
    (STANDARD, "lab|GENETIC|", False, False, False), (STANDARD, "survey||", False, False, False),
    (STANDARD, "condition||", True, True, True),
    (STANDARD, "condition|MH|", False, False, False), (STANDARD, "medication|UNCLASSIFIED|", False, False, False),
    (STANDARD, "billing||", True, True, True), (STANDARD, "billing|STD|", False, False, False),
    (FULL, "lab|HIV|", True, False, False), (FULL, "note||", True, True, True), (FULL, "visit|MH|", True, False, False),
    (FULL, "lab|MC|", False, False, False), (FULL, "billing||", True, True, True),
    (FULL, "condition|PHYHOLD|", False, False, False),
    (actor_of("PA", "billing"), "billing||", True, True, True), (actor_of("PA", "billing"), "lab||", False, False, False),
    (actor_of("PA", "billing", "standard"), "lab||", True, True, True), (actor_of("PA", "scheduling"), "visit||", True, True, True),
    (actor_of("PA"), "lab||", False, False, False), (actor_of("PA", "owner"), "lab||", False, False, False),
    (actor_of("CT"), "lab|HIV|", True, True, True), (actor_of("CT"), "lab|HELD|", True, True, True),
    (actor_of("CT"), "psynote||", False, False, False),
    (actor_of("CT"), "audit||", False, False, False), (actor_of("CT"), "condition|PHYHOLD|", True, True, True),
    (actor_of("BO"), "billing|STD|", True, True, True), (actor_of("BO"), "lab||", False, False, False),
    (actor_of("BO"), "visit||", True, True, True),
    (actor_of("BO"), "visit|MH|", False, False, False), (actor_of("BO"), "visit||reasonCode", False, False, False),
    (actor_of("AU"), "audit||", True, True, True), (actor_of("AU"), "lab||", False, False, False),
    (actor_of("BE"), "lab||", True, True, True), (actor_of("BE"), "lab|HIV|", False, False, False),
    (actor_of("BE", clearance=frozenset({"HIV"})), "lab|HIV|", True, True, True),
    (actor_of("BE", clearance=frozenset({"HIV"})), "lab|HIV,STD|", False, False, False),
    (actor_of("BE"), "lab|UNCLASSIFIED|", False, False, False), (actor_of("BE"), "consent||", False, False, False),
    (actor_of("BE", clearance=frozenset({"*"})), "psynote|HELD,PSYNOTE|", True, True, True),
    (actor_of("LP"), "lab|STD|", True, True, True), (actor_of("LP"), "billing||", False, False, False),
    (actor_of("LP"), "condition|PHYHOLD|", False, False, False), (actor_of("LB"), "condition|PHYHOLD|", True, True, True),
    (actor_of("LB"), "lab|SUD|", False, False, False), (actor_of("LB"), "lab|HIV|", False, False, False),
    (actor_of("LB"), "lab||", True, True, True),
]  # fmt: skip


@pytest.mark.parametrize(("actor", "text", "optum", "ssm", "strict"), CELLS)
def test_decisions_match_the_policy_table(actor: Actor, text: str, optum: bool, ssm: bool, strict: bool) -> None:
    assert [sees(policy, actor, text) for policy in (OPTUM, SSM, STRICT)] == [optum, ssm, strict]


@pytest.mark.parametrize(
    ("actor", "data", "params"),
    [
        (actor_of("PC"), "related-person", ("_id",)), (actor_of("PT"), "consent", ("_mentions",)),
        (FULL, "message", ("recipient", "sender")),
        (actor_of("PT"), "audit", ("agent",)), (actor_of("AS"), "related-person", None), (actor_of("AS"), "lab", None),
        (actor_of("PC"), "lab", None),
    ],
)  # fmt: skip
def test_own_conditions_give_parameters_that_name_the_actor(actor: Actor, data: str, params: tuple[str, ...] | None) -> None:
    assert own_conditions(OPTUM, actor, data) == params


def test_actor_text_does_not_depend_on_set_order() -> None:
    text = "Actor(PA, ['billing', 'full', 'scheduling', 'standard'], [])"
    assert repr(actor_of("PA", "standard", "scheduling", "full", "billing")) == text


def test_only_treating_staff_and_cleared_backend_see_unreleased() -> None:
    seeing = {actor.kind for actor in EVERYBODY if not released_only(actor)}
    assert seeing == {"CT", "BG"}
    assert not released_only(actor_of("BE", clearance=frozenset({"*"})))


def test_redactable_lists_elements_the_policy_removes() -> None:
    assert {"reasonCode", "text", "note", "contained"} <= redactable(OPTUM, "visit")
    assert {"telecom", "contact"} <= redactable(OPTUM, "demographics")
    assert redactable(OPTUM, "directory") == frozenset()
    assert redactable(OPTUM, "nonsense") == frozenset()


@pytest.mark.parametrize(
    ("actor", "type", "letter", "allowed"),
    [
        (actor_of("AS"), "Communication", "c", True), (actor_of("AS"), "Observation", "c", True),
        (actor_of("AS"), "Observation", "u", False),
        (actor_of("AS"), "Consent", "c", False), (actor_of("PT"), "Communication", "c", True), (actor_of("PT"), "Observation", "c", False),
        (actor_of("PX"), "Communication", "c", False), (actor_of("PA", "billing"), "Communication", "c", False),
        (FULL, "Communication", "c", True),
        (actor_of("CT"), "Condition", "u", True), (actor_of("CT"), "Patient", "d", False), (actor_of("BE"), "Patient", "d", True),
        (actor_of("BO"), "Condition", "c", False), (dataclasses.replace(actor_of("AS"), kind="??"), "Communication", "c", False),
    ],
)  # fmt: skip
def test_write_rights_depend_on_actor_type_and_interaction(actor: Actor, type: str, letter: str, allowed: bool) -> None:
    assert may_write(OPTUM, actor, type, letter) is allowed


@given(policies, st.sampled_from(EVERYBODY), keys)
def test_unknown_actor_data_class_or_label_is_denied(policy: Policy, actor: Actor, key: VisibilityClass) -> None:
    assert not permits(policy, dataclasses.replace(actor, kind="ZZ"), key)
    assert not permits(policy, actor, dataclasses.replace(key, data="nonsense"))
    assert not permits(policy, actor, dataclasses.replace(key, labels=key.labels | {"NEWLABEL"}))


@given(policies, st.sampled_from(EVERYBODY), keys, st.sampled_from(sorted(LABELS)))
def test_adding_a_label_never_grants_access(policy: Policy, actor: Actor, key: VisibilityClass, label: str) -> None:
    assert permits(policy, actor, key) or not permits(policy, actor, dataclasses.replace(key, labels=key.labels | {label}))


@given(policies, st.sampled_from(EVERYBODY), keys)
def test_element_is_never_visible_without_its_resource(policy: Policy, actor: Actor, key: VisibilityClass) -> None:
    assert permits(policy, actor, dataclasses.replace(key, element="")) or not permits(policy, actor, key)


@given(policies, keys)
def test_broader_actors_see_all_that_narrower_ones_see(policy: Policy, key: VisibilityClass) -> None:
    for narrow, wide in ((actor_of("PT"), actor_of("PC")), (STANDARD, FULL), (FULL, actor_of("AS")),
                         (actor_of("PA", "scheduling"), FULL),
                         (actor_of("PA", "billing"), FULL), (actor_of("PC"), actor_of("AS")),
                         (actor_of("CT"), actor_of("BG"))):  # fmt: skip
        assert permits(policy, wide, key) or not permits(policy, narrow, key), (narrow, wide)


@given(st.sampled_from(EVERYBODY), keys)
def test_strict_policy_never_permits_more_than_others(actor: Actor, key: VisibilityClass) -> None:
    for looser in (OPTUM, SSM):
        assert permits(looser, actor, key) or not permits(STRICT, actor, key)


def test_every_actor_except_expired_proxy_sees_some_data() -> None:
    seeing = {actor.kind for actor in EVERYBODY for data in OPTUM.classes if permits(OPTUM, actor, VisibilityClass(data))}
    assert seeing == ACTORS - {"PX"}


def merged(name: str) -> dict[str, object]:
    return _merge(reversed(_layers(name, FOLDER)))


@given(st.sampled_from(sorted(SHIPPED)), st.sampled_from(EVERYBODY), keys, st.data())
def test_adding_a_deny_rule_never_grants_access(name: str, actor: Actor, key: VisibilityClass, data: st.DataObject) -> None:
    rule = {
        "id": "added",
        "actors": [data.draw(st.sampled_from(sorted(ACTORS)))],
        "data": ["*"],
        "effect": "deny",
        "source": "test",
        "labels": [data.draw(st.sampled_from(sorted(LABELS)))],
    }
    raw = merged(name)
    narrowed = _compile({**raw, "rules": [*raw["rules"], rule]})  # type: ignore[misc]
    assert permits(SHIPPED[name], actor, key) or not permits(narrowed, actor, key)


def test_rule_order_does_not_change_decisions() -> None:
    raw = merged("optum")
    rules = list(raw["rules"])  # type: ignore[call-overload]
    random.Random(7).shuffle(rules)
    shuffled = _compile({**raw, "rules": rules})
    samples = [
        VisibilityClass(data, frozenset(labels), element)
        for data in OPTUM.classes
        for labels in ((), ("HIV",), ("MC",), ("UNCLASSIFIED",))
        for element in ("", "text", "reasonCode")
    ]
    for actor, key in itertools.product(EVERYBODY, samples):
        assert permits(OPTUM, actor, key) == permits(shuffled, actor, key)


def test_visibility_class_round_trips_as_text() -> None:
    for key in (VisibilityClass("lab"), VisibilityClass("visit", frozenset({"MH", "HIV"}), "text")):
        assert VisibilityClass.parse(key.text()) == key
    assert VisibilityClass("lab", frozenset({"STD", "HIV"})).text() == "lab|HIV,STD|"
    with pytest.raises(ValueError):
        VisibilityClass.parse("lab")


def write(folder: Path, **content: object) -> str:
    path = folder / "house.json"
    path.write_text(json.dumps({"policy": "house", "extends": "optum", **content}))
    return str(path)


RULE = {"id": "house.one", "actors": ["PC"], "data": ["lab"], "effect": "deny", "source": "board decision 7"}


def test_institution_policy_narrows_the_base_policy(tmp_path: Path) -> None:
    house = load(write(tmp_path, rules=[RULE], timezone="America/Denver"))
    assert not sees(house, actor_of("PC"), "lab||") and sees(house, actor_of("PC"), "imaging||")
    assert house.timezone.key == "America/Denver"
    assert house.version != OPTUM.version


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"rulez": []}, "rulez"),
        ({"rules": [{**RULE, "color": "red"}]}, "color"),
        ({"rules": [{key: value for key, value in RULE.items() if key != "source"}]}, "source"),
        ({"rules": [{**RULE, "data": ["labs"]}]}, "labs"),
        ({"rules": [{**RULE, "labels": ["STDS"]}]}, "STDS"),
        ({"rules": [{**RULE, "actors": ["PARENT"]}]}, "PARENT"),
        ({"rules": [{**RULE, "id": "PT.sensitive"}]}, "PT.sensitive"),
        ({"rules": [{**RULE, "effect": "permit", "labels": ["STD"]}]}, "deny"),
        ({"rules": [{**RULE, "effect": "redact"}]}, "elements"),
        ({"rules": [{**RULE, "when": {"proxy.teen.mood": ["filter"]}}]}, "proxy.teen.mood"),
        ({"switches": {"proxy.teen.mode": "open"}}, "open"),
        ({"timezone": "Mars/Olympus"}, "Mars"),
        ({"extends": "nowhere"}, "nowhere"),
        ({"sets": {"Slab": ["HIV"]}}, "leaves out DRUGTEST, PAP, PREG, STD"),
        ({"sets": {"Sdept": ["Slab"]}}, "leaves out MH, SEXAB, SUD"),
        ({"sets": {"PSYNOTE": ["PREG"]}}, "'PSYNOTE' is the name of a label"),
        ({"groups": {"chart": ["lab"]}}, "'chart' is defined again"),
        ({"groups": {"chart": ["*"]}}, "'chart' is defined again"),
        ({"sets": {"Sown": ["Sother"], "Sother": ["Sown"]}, "rules": [{**RULE, "labels": ["Sown"]}]}, "'Sown' contains itself"),
        ({"groups": {"own": ["@own"]}, "rules": [{**RULE, "data": ["@own"]}]}, "'@own' contains itself"),
    ],
)
def test_invalid_policy_file_is_rejected(tmp_path: Path, content: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load(write(tmp_path, **content))


def test_layer_may_widen_a_set_and_add_sets_and_groups(tmp_path: Path) -> None:
    assert sees(OPTUM, actor_of("PT"), "lab||"), "the control"
    wider = load(
        write(
            tmp_path,
            sets={"Scond": ["Slab", "Sdept", "REPRO", "GENETIC"], "Sown": ["Slab", "MH"]},
            groups={"own": ["@chart"]},
        )
    )
    former = {rule.id: rule.labels for rule in OPTUM.rules}
    assert all(former[rule.id] <= rule.labels for rule in wider.rules)
    assert any("GENETIC" in rule.labels - former[rule.id] for rule in wider.rules)


def test_every_shipped_rule_has_an_id_and_a_source() -> None:
    for policy in SHIPPED.values():
        assert all(rule.id and rule.source for rule in policy.rules)
    assert len({policy.version for policy in SHIPPED.values()}) == 3
