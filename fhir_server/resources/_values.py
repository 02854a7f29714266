"""Checks of single values: primitives, their ``_x`` siblings, arrays, and an element's restrictions of its datatype.

http://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.resources.definitions import TypeRef
from fhir_server.resources.primitives import VALID, is_json_kind, json_kind
from fhir_server.resources.reference_targets import targets_check
from fhir_server.resources.validation_run import Place, ValidationRun, quote

Check = Callable[[Any, dict[str, Any], Place, ValidationRun], None]
NodeCheck = Callable[[dict[str, Any], Place, ValidationRun], None]


def primitive(label: str, datatype: str, codes: frozenset[str] | None, many: bool) -> Check:
    """A check of a primitive, or of an array of them, against its datatype and the codes of a required binding."""
    valid = VALID[datatype]

    def report(value: Any, place: Place, run: ValidationRun) -> None:
        if not is_json_kind(datatype, value):
            run.add("structure", f"Expected {json_kind(datatype)} ({datatype}).", place)
        elif codes is not None:
            run.add("code-invalid", f"{quote(value)} is not one of the codes required here.", place)
        else:
            run.add("value", f"{quote(value)} is not a valid {datatype}.", place)

    def is_valid(value: Any) -> bool:
        return (type(value) is str and value in codes) if codes is not None else valid(value)

    def single(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        if not is_valid(value):
            report(value, (place, label, -1), run)

    def single_without_codes(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        if not valid(value):
            report(value, (place, label, -1), run)

    def array(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        if _is_array(value, label, place, run):
            for index, item in enumerate(value):
                if item is None and _has_pair(node.get("_" + label), index):
                    continue
                if not is_valid(item):
                    report(item, (place, label, index), run)

    return array if many else single_without_codes if codes is None else single


def _has_pair(siblings: Any, index: int) -> bool:
    return type(siblings) is list and index < len(siblings) and siblings[index] is not None


def _is_array(value: Any, label: str, place: Place, run: ValidationRun) -> bool:
    if type(value) is not list:
        run.add("structure", "Expected an array.", (place, label, -1))
        return False
    if not value:
        run.add("structure", "An array may not be empty.", (place, label, -1))
    return True


def sibling(label: str, many: bool, check: NodeCheck) -> Check:
    """A check of ``_x``, the sibling of a primitive: an object of id and extensions, or an array of such objects and nulls."""

    def single(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        _check_object(value, (place, label, -1), run, check)

    def array(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        if not _is_array(value, label, place, run):
            return
        values = node.get(label)
        for index, item in enumerate(value):
            if item is not None:
                _check_object(item, (place, label, index), run, check)
            elif not _has_pair(values, index):
                run.add("structure", "A null is only allowed where the other array has a value.", (place, label, index))

    return array if many else single


def complex_value(label: str, check: NodeCheck, many: bool) -> Check:
    """A check of an object, or of an array of them."""

    def single(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        _check_object(value, (place, label, -1), run, check)

    def array(value: Any, node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        if _is_array(value, label, place, run):
            for index, item in enumerate(value):
                _check_object(item, (place, label, index), run, check)

    return array if many else single


def _check_object(value: Any, place: Place, run: ValidationRun, check: NodeCheck) -> None:
    if type(value) is dict:
        check(value, place, run)
    else:
        run.add("structure", "Expected an object.", place)


def refined(check: NodeCheck, ref: TypeRef, codes: Mapping[str, tuple[str, ...]] | None) -> NodeCheck:
    """The check of a datatype with this element's restrictions: reference targets, a required binding, no comparator."""
    extra: list[NodeCheck] = []
    if ref.code == "Reference":
        extra.append(targets_check(ref.targets))
    if ref.code == "Quantity" and "SimpleQuantity" in ref.targets:
        extra.append(_no_comparator)
    if codes is not None and ref.code in ("CodeableConcept", "Coding", "Quantity"):
        extra.append(_required_binding(ref.code, {system: frozenset(members) for system, members in codes.items()}))
    for restriction in extra:
        check = _both(check, restriction)
    return check


def _both(first: NodeCheck, second: NodeCheck) -> NodeCheck:
    def check(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        first(node, place, run)
        second(node, place, run)

    return check


def _no_comparator(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
    if "comparator" in node or "_comparator" in node:
        run.add("invariant", "sqty-1: The comparator is not used on a SimpleQuantity.", place)


def _required_binding(datatype: str, codes: Mapping[str, frozenset[str]]) -> NodeCheck:
    """A check that at least one coding is in the value set."""

    def check(node: dict[str, Any], place: Place, run: ValidationRun) -> None:
        codings = node.get("coding") if datatype == "CodeableConcept" else [node]
        present = [coding for coding in codings if type(coding) is dict] if type(codings) is list else []
        if not any(_is_listed(coding, codes) for coding in present):
            what = quote(present[0].get("code")) if present and "code" in present[0] else "This value"
            run.add("code-invalid", f"{what} is not one of the codes required here.", place)

    return check


def _is_listed(coding: dict[str, Any], codes: Mapping[str, frozenset[str]]) -> bool:
    system, code = coding.get("system"), coding.get("code")
    return type(system) is str and type(code) is str and code in codes.get(system, ())
