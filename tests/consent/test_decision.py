"""The decision: the cells of the policy's main table, and the laws any policy must obey."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.consent.decision import Actor, explain, may_write, own_conditions, permits, redactable, released_only
from fhir_server.consent.policy import ACTORS, FOLDER, Policy, _compiled, _layers, _merged, load
from fhir_server.consent.visibility_classes import LABELS, VisibilityClass

OPTUM, SSM, STRICT = load("optum"), load("ssm"), load("strict")
SHIPPED = {"optum": OPTUM, "ssm": SSM, "strict": STRICT}
STANDARD, FULL = Actor("PA", "standard"), Actor("PA", "full")
PATIENT_CLASS = (Actor("AS"), Actor("MS"), Actor("PC"), Actor("PT"), Actor("PX"), Actor("PR"), STANDARD, FULL,
                 Actor("PA", "scheduling"), Actor("PA", "billing"))  # fmt: skip
EVERYBODY = (*PATIENT_CLASS, Actor("CT"), Actor("BG"), Actor("BO"), Actor("AU"), Actor("LP"), Actor("LB"), Actor("BE"),
             Actor("BE", clearance=frozenset({"HIV"})))  # fmt: skip

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
    (Actor("AS"), "lab|STD|", True, True, False), (Actor("AS"), "lab||", True, True, True),
    (Actor("AS"), "medication|MH|", True, True, True),
    (Actor("AS"), "visit|MH|", True, True, True), (Actor("AS"), "condition|PHYHOLD|", False, False, False),
    (Actor("AS"), "lab|HELD|", False, False, False), (Actor("AS"), "note|PSYNOTE|", False, False, False),
    (Actor("AS"), "lab|UNCLASSIFIED|", True, True, True), (Actor("AS"), "visit|MIXED|", False, False, False),
    (Actor("AS"), "lab|MC|", True, True, True),
    (Actor("PC"), "lab|STD|", True, False, False), (Actor("PC"), "visit|SUD|", True, False, False),
    (Actor("PC"), "lab||", True, True, True),
    (Actor("PC"), "visit|MC|", False, False, False), (Actor("PC"), "medication|MH|", True, False, False),
    (Actor("PC"), "lab|UNCLASSIFIED|", True, True, True), (Actor("PC"), "immunization||", True, True, True),
    (Actor("PC"), "lab|GENETIC|", True, True, True), (Actor("PC"), "billing|MC|", False, False, False),
    (Actor("PT"), "lab||", True, True, False), (Actor("PT"), "lab|HIV|", False, False, False),
    (Actor("PT"), "lab|PREG|", False, False, False),
    (Actor("PT"), "lab|UNCLASSIFIED|", False, False, False), (Actor("PT"), "medication||", True, True, False),
    (Actor("PT"), "medication|MH|", False, False, False), (Actor("PT"), "visit||", True, True, False),
    (Actor("PT"), "visit|SEXAB|", False, False, False), (Actor("PT"), "visit|UNCLASSIFIED|", False, False, False),
    (Actor("PT"), "visit||reasonCode", False, False, False), (Actor("PT"), "visit||text", False, False, False),
    (Actor("PT"), "immunization||", True, True, True), (Actor("PT"), "immunization|UNCLASSIFIED|", True, True, False),
    (Actor("PT"), "immunization||encounter", False, False, False), (Actor("PT"), "immunization|MC|", False, False, False),
    (Actor("PT"), "billing||", True, True, True), (Actor("PT"), "billing|STD|", False, False, False),
    (Actor("PT"), "coverage||", True, True, True), (Actor("PT"), "letter||", True, True, True),
    (Actor("PT"), "letter|MH|", False, False, False),
    (Actor("PT"), "endoflife||", True, True, True), (Actor("PT"), "demographics||", True, True, True),
    (Actor("PT"), "demographics||telecom", False, False, False), (Actor("PT"), "condition||", False, False, False),
    (Actor("PT"), "note||", False, False, False), (Actor("PT"), "social||", False, False, False),
    (Actor("PT"), "survey||", False, False, False),
    (Actor("PT"), "procedure||", False, False, False), (Actor("PT"), "allergy||", True, True, False),
    (Actor("PT"), "allergy|HIV|", False, False, False), (Actor("PT"), "lab|GENETIC|", True, True, False),
    (Actor("PT"), "directory||", True, True, True), (Actor("PT"), "audit||", True, True, True),
    (Actor("PX"), "demographics||", False, False, False), (Actor("PX"), "billing||", False, False, False),
    (Actor("PX"), "immunization||", False, False, False),
    (STANDARD, "lab||", True, True, True), (STANDARD, "lab|HIV|", False, False, False), (STANDARD, "note||", False, False, False),
    (STANDARD, "lab|GENETIC|", False, False, False), (STANDARD, "survey||", False, False, False),
    (STANDARD, "condition||", True, True, True),
    (STANDARD, "condition|MH|", False, False, False), (STANDARD, "medication|UNCLASSIFIED|", False, False, False),
    (STANDARD, "billing||", True, True, True), (STANDARD, "billing|STD|", False, False, False),
    (FULL, "lab|HIV|", True, False, False), (FULL, "note||", True, True, True), (FULL, "visit|MH|", True, False, False),
    (FULL, "lab|MC|", False, False, False), (FULL, "billing||", True, True, True),
    (FULL, "condition|PHYHOLD|", False, False, False),
    (Actor("PA", "billing"), "billing||", True, True, True), (Actor("PA", "billing"), "lab||", False, False, False),
    (Actor("PA", "billing+standard"), "lab||", True, True, True), (Actor("PA", "scheduling"), "visit||", True, True, True),
    (Actor("PA", ""), "lab||", False, False, False), (Actor("PA", "owner"), "lab||", False, False, False),
    (Actor("CT"), "lab|HIV|", True, True, True), (Actor("CT"), "lab|HELD|", True, True, True),
    (Actor("CT"), "psynote||", False, False, False),
    (Actor("CT"), "audit||", False, False, False), (Actor("CT"), "condition|PHYHOLD|", True, True, True),
    (Actor("BO"), "billing|STD|", True, True, True), (Actor("BO"), "lab||", False, False, False),
    (Actor("BO"), "visit||", True, True, True),
    (Actor("BO"), "visit|MH|", False, False, False), (Actor("BO"), "visit||reasonCode", False, False, False),
    (Actor("AU"), "audit||", True, True, True), (Actor("AU"), "lab||", False, False, False),
    (Actor("BE"), "lab||", True, True, True), (Actor("BE"), "lab|HIV|", False, False, False),
    (Actor("BE", clearance=frozenset({"HIV"})), "lab|HIV|", True, True, True),
    (Actor("BE", clearance=frozenset({"HIV"})), "lab|HIV,STD|", False, False, False),
    (Actor("BE"), "lab|UNCLASSIFIED|", False, False, False), (Actor("BE"), "consent||", False, False, False),
    (Actor("BE", clearance=frozenset({"*"})), "psynote|HELD,PSYNOTE|", True, True, True),
    (Actor("LP"), "lab|STD|", True, True, True), (Actor("LP"), "billing||", False, False, False),
    (Actor("LP"), "condition|PHYHOLD|", False, False, False), (Actor("LB"), "condition|PHYHOLD|", True, True, True),
    (Actor("LB"), "lab|SUD|", False, False, False), (Actor("LB"), "lab|HIV|", False, False, False),
    (Actor("LB"), "lab||", True, True, True),
]  # fmt: skip


@pytest.mark.parametrize(("actor", "text", "optum", "ssm", "strict"), CELLS)
def test_decisions_match_the_policy_table(actor: Actor, text: str, optum: bool, ssm: bool, strict: bool) -> None:
    assert [sees(policy, actor, text) for policy in (OPTUM, SSM, STRICT)] == [optum, ssm, strict]


@pytest.mark.parametrize(
    ("actor", "data", "params"),
    [
        (Actor("PC"), "related-person", ("_id",)), (Actor("PT"), "consent", ("_mentions",)),
        (FULL, "message", ("recipient", "sender")),
        (Actor("PT"), "audit", ("agent",)), (Actor("AS"), "related-person", None), (Actor("AS"), "lab", None),
        (Actor("PC"), "lab", None),
    ],
)  # fmt: skip
def test_own_conditions_give_parameters_that_name_the_actor(actor: Actor, data: str, params: tuple[str, ...] | None) -> None:
    assert own_conditions(OPTUM, actor, data) == params


def test_only_treating_staff_and_cleared_backend_see_unreleased() -> None:
    seeing = {actor.kind for actor in EVERYBODY if not released_only(actor)}
    assert seeing == {"CT", "BG"}
    assert not released_only(Actor("BE", clearance=frozenset({"*"})))


def test_redactable_lists_elements_the_policy_removes() -> None:
    assert {"reasonCode", "text", "note", "contained"} <= redactable(OPTUM, "visit")
    assert {"telecom", "contact"} <= redactable(OPTUM, "demographics")
    assert redactable(OPTUM, "directory") == frozenset()
    assert redactable(OPTUM, "nonsense") == frozenset()


@pytest.mark.parametrize(
    ("actor", "type", "letter", "allowed"),
    [
        (Actor("AS"), "Communication", "c", True), (Actor("AS"), "Observation", "c", True),
        (Actor("AS"), "Observation", "u", False),
        (Actor("AS"), "Consent", "c", False), (Actor("PT"), "Communication", "c", True), (Actor("PT"), "Observation", "c", False),
        (Actor("PX"), "Communication", "c", False), (Actor("PA", "billing"), "Communication", "c", False),
        (FULL, "Communication", "c", True),
        (Actor("CT"), "Condition", "u", True), (Actor("CT"), "Patient", "d", False), (Actor("BE"), "Patient", "d", True),
        (Actor("BO"), "Condition", "c", False), (Actor("??"), "Communication", "c", False),
    ],
)  # fmt: skip
def test_write_rights_depend_on_actor_type_and_interaction(actor: Actor, type: str, letter: str, allowed: bool) -> None:
    assert may_write(OPTUM, actor, type, letter) is allowed


def test_explanation_names_the_deciding_rule_and_source() -> None:
    found = explain(OPTUM, Actor("PT"), VisibilityClass("lab", frozenset({"HIV"})))
    assert (found.decision, found.rule) == ("deny", "PT.sensitive") and "O:117" in found.source


@given(policies, st.sampled_from(EVERYBODY), keys)
def test_unknown_actor_data_class_or_label_is_denied(policy: Policy, actor: Actor, key: VisibilityClass) -> None:
    assert not permits(policy, Actor("ZZ", actor.level, actor.clearance), key)
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
    for narrow, wide in ((Actor("PT"), Actor("PC")), (STANDARD, FULL), (FULL, Actor("AS")), (Actor("PA", "scheduling"), FULL),
                         (Actor("PA", "billing"), FULL), (Actor("PC"), Actor("AS")), (Actor("CT"), Actor("BG"))):  # fmt: skip
        assert permits(policy, wide, key) or not permits(policy, narrow, key), (narrow, wide)


@given(st.sampled_from(EVERYBODY), keys)
def test_strict_policy_never_permits_more_than_others(actor: Actor, key: VisibilityClass) -> None:
    for looser in (OPTUM, SSM):
        assert permits(looser, actor, key) or not permits(STRICT, actor, key)


def test_every_actor_except_expired_proxy_sees_some_data() -> None:
    seeing = {actor.kind for actor in EVERYBODY for data in OPTUM.classes if permits(OPTUM, actor, VisibilityClass(data))}
    assert seeing == ACTORS - {"PX"}


def merged(name: str) -> dict[str, object]:
    return _merged(reversed(_layers(name, FOLDER)))


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
    narrowed = _compiled({**raw, "rules": [*raw["rules"], rule]})  # type: ignore[misc]
    assert permits(SHIPPED[name], actor, key) or not permits(narrowed, actor, key)


def test_rule_order_does_not_change_decisions() -> None:
    raw = merged("optum")
    rules = list(raw["rules"])  # type: ignore[call-overload]
    random.Random(7).shuffle(rules)
    shuffled = _compiled({**raw, "rules": rules})
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
    assert not sees(house, Actor("PC"), "lab||") and sees(house, Actor("PC"), "imaging||")
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
    ],
)
def test_invalid_policy_file_is_rejected(tmp_path: Path, content: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load(write(tmp_path, **content))


def test_every_shipped_rule_has_an_id_and_a_source() -> None:
    for policy in SHIPPED.values():
        assert all(rule.id and rule.source for rule in policy.rules)
    assert len({policy.version for policy in SHIPPED.values()}) == 3
