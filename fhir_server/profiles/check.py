"""Checks a resource that is valid R4 against a profile, step by step, so that others can go on between the steps.

The base definitions have been checked (:mod:`fhir_server.resources.validate`); codes are looked up afterwards, in the terminology.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fhir_server.errors import Issue
from fhir_server.profiles.elements import ABSENT, Binding, ElementNode, Profile, ProfileRule, Slicing
from fhir_server.profiles.items import Item, equals, items_of, matches, root_item
from fhir_server.profiles.known import Known
from fhir_server.profiles.limits import beyond
from fhir_server.profiles.slices import Verdict, belongs, codings_of
from fhir_server.resources.reference_targets import targets_check
from fhir_server.resources.validation_run import Place, TooManyIssuesError, ValidationRun, expression, quote

Steps = Iterator[None]


class CodeQuestion(NamedTuple):
    """Codes that must, or should, be in a value set: (system, code) pairs, and the place of the element."""

    binding: Binding
    codings: tuple[tuple[str, str], ...]
    place: str


@dataclass(slots=True)
class ProfileCheck:
    """One check of a resource.

    ``run`` has the errors found, ``remarks`` what is less, and ``questions`` what the terminology must answer.
    """

    known: Known
    run: ValidationRun
    questions: list[CodeQuestion]
    remarks: list[Issue] = field(default_factory=list)

    def steps(self, resource: Any, profile: Profile, place: Place) -> Steps:
        """Check the resource at a place against a profile, and its extensions against theirs."""
        try:
            yield from self._profile(root_item(resource), profile, place)
            yield from self._extensions(resource, place)
        except TooManyIssuesError:
            pass

    # -- profiles --------------------------------------------------------------------------------------------------

    def _profile(self, item: Item, profile: Profile, place: Place) -> Steps:
        all_of_it = [profile]
        while (base := self.known.profiles.get(all_of_it[-1].base)) is not None and base not in all_of_it:
            all_of_it.append(base)
        for one in reversed(all_of_it):
            yield from self._item(item, one.root, one.root, place)

    def _conforms(self, item: Item, url: str) -> Verdict:
        """Whether an item meets a profile, as far as that can be said without the terminology."""
        profile = self.known.profiles.get(url)
        return None if profile is None else not self._issues(item, profile, (None, profile.type, -1))

    def _issues(self, item: Item, profile: Profile, place: Place) -> list[Any]:
        inner = ValidationRun(item.value if "resourceType" in item.members else self.run.resource)
        inner.root = self.run.root
        trial = ProfileCheck(self.known, inner, [])
        try:
            for _ in trial._profile(item, profile, place):
                pass
        except TooManyIssuesError:
            pass
        return inner.issues

    def _extensions(self, value: Any, place: Place) -> Steps:
        """Each extension, wherever it is, meets the profile that its URL names, if that is known."""
        if not isinstance(value, dict):
            return
        for name in value:
            many = isinstance(value[name], list)
            for index, inner in enumerate(value[name] if many else (value[name],)):
                if not isinstance(inner, dict):
                    continue
                here = (place, name.lstrip("_"), index if many else -1)
                if name in ("extension", "modifierExtension") and (profile := self.known.profiles.get(str(inner.get("url")))) is not None:
                    yield from self._profile(Item(inner, None, "", name, index), profile, here)
                yield from self._extensions(inner, here)

    # -- elements --------------------------------------------------------------------------------------------------

    def _item(self, item: Item, node: ElementNode, root: ElementNode, place: Place) -> Steps:
        """Check an item against an element and everything inside it."""
        yield
        if node.is_choice and node.types and item.kind not in {option.code for option in node.types}:
            self.run.add("structure", f"{item.kind} is not a type that the profile allows here.", place)
        if not self._check_value(item, node, place):
            return
        for rule in node.rules:
            self._check_rule(rule, item, place)
        yield from self._types(item, node, place)
        for child in _children(node, root).values():
            yield from self._children(item, child, root, place)

    def _check_value(self, item: Item, node: ElementNode, place: Place) -> bool:
        """Check fixed value, pattern and bounds, and note what codes it has.  False if the value is another one than the fixed one."""
        if node.fixed is not ABSENT and not equals(node.fixed, item.value):
            self.run.add("value", f"The profile fixes this value: {quote(_shown(node.fixed))}.", place)
            return False
        if node.pattern is not ABSENT and not matches(node.pattern, item.value):
            self.run.add("value", f"The value lacks what the profile's pattern demands: {quote(_shown(node.pattern))}.", place)
            return False
        for kind, limit in node.limits.items():
            if beyond(kind, limit, item.value):
                self.run.add("value", f"The value is beyond the profile's {kind}.", place)
        for binding in node.bindings:
            codings = tuple(codings_of(item.value))
            if codings or (item.value is not None and "extension" not in item.members):
                self.questions.append(CodeQuestion(binding, codings, expression(place)))
        return True

    def _check_rule(self, rule: ProfileRule, item: Item, place: Place) -> None:
        holds = self._holds(rule, item)
        if holds is None:
            text = f"This server does not evaluate the invariant {rule.text}"
            self.remarks.append(Issue("not-supported", text, (expression(place),), "information"))
        elif not holds:
            if rule.is_error:
                self.run.add("invariant", rule.text, place)
            else:
                self.remarks.append(Issue("invariant", rule.text, (expression(place),), "warning"))

    def _holds(self, rule: ProfileRule, item: Item) -> bool | None:
        """Whether an item meets a rule; None if that cannot be evaluated, by this server or for this value."""
        if rule.predicate is None:
            return None
        try:
            return rule.predicate(item.node, self.run.resource, self.run.root)
        except (ArithmeticError, LookupError, TypeError, ValueError, re.error):
            return None  # an expression of somebody else's: a wrong type, a broken pattern, a number beyond all bounds

    def _types(self, item: Item, node: ElementNode, place: Place) -> Steps:
        """The profiles of its type, one of which it must meet, and the types of a reference's target."""
        kind = item.kind if node.is_choice else ""
        options = [option for option in node.types if not kind or option.code == kind]
        targets = [url for option in options if option.code == "Reference" for url in option.targets]
        if targets and isinstance(item.value, dict):
            types = tuple(self.known.target_type(url) for url in targets)
            if "" not in types:
                targets_check(types)(item.value, place, self.run)
        urls = [url for option in options if option.code != "Extension" for url in option.profiles]
        profiles = [profile for url in urls if (profile := self.known.profiles.get(url)) is not None]
        if not profiles or len(profiles) < len(urls):
            return
        if len(profiles) == 1:
            yield from self._profile(item, profiles[0], place)
        elif all(self._issues(item, profile, place) for profile in profiles):
            self.run.add("structure", "The value meets none of the profiles that are allowed here.", place)

    def _children(self, item: Item, child: ElementNode, root: ElementNode, place: Place) -> Steps:
        found = items_of(item.members, child.name)
        self._count(found, child, place, "")
        for one in found:
            yield from self._item(one, child, root, (place, one.name, one.position))
        if child.slicing is not None:
            yield from self._slices(found, child, child.slicing, root, place)

    def _count(self, found: list[Item], node: ElementNode, place: Place, slice: str, more: int = 0) -> None:
        """Check how often an element occurs; ``more``: how many items may belong to it, too."""
        here, what = (place, node.name.removesuffix("[x]"), -1), f"'{node.name}'" + (f" of the slice '{slice}'" if slice else "")
        if len(found) + more < node.min:
            times = "" if node.min == 1 else f" at least {node.min} times"
            self.run.add("required", f"The profile requires {what}{times} here.", here)
        if len(found) > node.max:
            self.run.add("structure", f"The profile allows {what} at most {int(node.max)} times here.", here)

    # -- slices ----------------------------------------------------------------------------------------------------

    def _slices(self, items: list[Item], node: ElementNode, slicing: Slicing, root: ElementNode, place: Place) -> Steps:
        members: dict[str, list[Item]] = {name: [] for name in node.slices}
        undecided, last, others = 0, 0, False
        order = list(node.slices)
        for item in items:
            yield
            verdicts = {name: belongs(item, one, slicing.discriminators, self.known, self._conforms) for name, one in node.slices.items()}
            chosen = next((name for name, verdict in verdicts.items() if verdict), None)
            here = (place, item.name, item.position)
            if chosen is not None:
                if (slicing.ordered and order.index(chosen) < last) or (slicing.rules == "openAtEnd" and others):
                    self.run.add("structure", "The item is not in the order of the profile's slices.", here)
                last = order.index(chosen)
                members[chosen].append(item)
                yield from self._item(item, node.slices[chosen], root, here)
            elif None in verdicts.values():
                undecided += 1
            else:
                others = True
                if slicing.rules == "closed":
                    self.run.add("structure", "The item belongs to none of the profile's slices, and others are not allowed.", here)
        for name, one in node.slices.items():
            self._count(members[name], one, place, name, undecided)
            if one.slicing is not None:
                yield from self._slices(members[name], one, one.slicing, root, place)


def _children(node: ElementNode, root: ElementNode) -> dict[str, ElementNode]:
    """The children of an element, or of the element whose content it shares."""
    if node.children or not node.like:
        return node.children
    found = root
    for name in node.like.split(".")[1:]:
        if name not in found.children:
            return {}
        found = found.children[name]
    return found.children


def _shown(value: Any) -> Any:
    """A fixed value or pattern as a message shows it: its codes, if it has some."""
    codes = codings_of(value) if isinstance(value, dict) else []
    return ", ".join(f"{system}#{code}" for system, code in codes) or value
