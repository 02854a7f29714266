"""Which profiles a resource must meet, and whether it does.

A resource must meet the profiles that it claims in ``meta.profile`` and those that the institution requires of its type; resources
inside it (:mod:`.inner_resources`) must meet those that they claim.  The verdict follows from the resource and the packages alone, and
so is the same for every caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.errors import Issue, Problem
from fhir_server.packages.claims import NO_CLAIMS, Claims, claims_of
from fhir_server.packages.inner_resources import PlacedResource, any_claims, with_inner
from fhir_server.packages.loading import REVISION, stored_packages
from fhir_server.packages.profile_source import guide_profiles, held_profiles
from fhir_server.profiles.check import CodeQuestion, ProfileCheck
from fhir_server.profiles.elements import CORE, Profile, is_core
from fhir_server.profiles.held_profiles import HeldProfiles, PackageKnowledge
from fhir_server.resources import definitions
from fhir_server.resources.validation_run import MAX_ISSUES, expression, quote
from fhir_server.store import Store

_MOST_CLAIMS: Final = 20


class _Held(NamedTuple):
    """What packages hold since their last change."""

    revision: bytes | None
    profiles: HeldProfiles
    claims: Claims


class _Findings:
    """Errors and other remarks, each once and at most :data:`MAX_ISSUES`, in the order in which they were found."""

    def __init__(self) -> None:
        self.errors: dict[Issue, None] = {}
        self.remarks: dict[Issue, None] = {}

    def add(self, issue: Issue, *, is_error: bool) -> None:
        into = self.errors if is_error else self.remarks
        if len(into) < MAX_ISSUES:
            into[Issue(issue.code, issue.text, issue.expression, "error") if is_error else issue] = None


class ProfileValidator:
    """Validates resources against the profiles of a store's packages.

    ``required``  type -> profiles that each resource of it must meet
    ``refuses_unknown``  whether a claim of a profile that is not here refuses a write
    """

    def __init__(self, store: Store, required: Mapping[str, Sequence[str]], *, refuses_unknown: bool) -> None:
        self._store = store
        self._required = required
        self._refuses_unknown = refuses_unknown
        self._held: _Held | None = None

    def must_check(self, type: str, value: Mapping[str, Any]) -> bool:
        """Whether a resource may have profiles to meet.  Reads nothing."""
        return type in self._required or any_claims(value)

    async def require(self, type: str, value: Mapping[str, Any]) -> None:
        """Require that a valid resource meets the profiles that it must meet.  Raises Problem ``unprocessable`` or ``too_costly``."""
        errors = tuple((await self._findings(type, value, (), warns=self._refuses_unknown)).errors)
        if errors:
            raise Problem("unprocessable", errors[0].text, errors)

    async def issues(self, type: str, value: Mapping[str, Any], asked: str = "") -> list[Issue]:
        """All that can be said of a valid resource: errors, warnings, and what cannot be checked here.  ``asked``: one more profile.

        Raises Problem ``too_costly``.
        """
        found = await self._findings(type, value, (asked,) if asked else (), warns=True)
        return [*found.errors, *found.remarks][:MAX_ISSUES]

    def _refuses(self, issue: Issue) -> bool:
        return issue.severity == "error" or (self._refuses_unknown and issue.code == "not-supported" and issue.severity == "warning")

    async def _findings(self, type: str, value: Mapping[str, Any], asked: Sequence[str], *, warns: bool) -> _Findings:
        """What can be said of a resource and of those inside it, until there are too many errors."""
        found, known = _Findings(), None
        demanded = (*asked, *self._required.get(type, ()))
        for resource in with_inner(value):
            names = dict.fromkeys((*demanded, *resource.claims))
            if len(names) > _MOST_CLAIMS:
                names = {}
                found.add(Issue("processing", f"A resource claims at most {_MOST_CLAIMS} profiles.", _claim_place(resource)), is_error=True)
            for name in names:
                known = known or await self.held()
                for issue in await self._issues(resource, name, known, is_demanded=name in demanded, warns=warns):
                    found.add(issue, is_error=self._refuses(issue))
            if len(found.errors) == MAX_ISSUES:
                break
            demanded = ()  # of the resource itself, not of those inside it
            await budget.give_way()
        return found

    async def _issues(self, resource: PlacedResource, name: str, known: HeldProfiles, *, is_demanded: bool, warns: bool) -> list[Issue]:
        type = resource.type
        if is_core(name):
            is_base = name.partition("|")[0].removeprefix(CORE) in (type, "Resource", "DomainResource")
            return [] if is_base else [_of_other_type(name, resource)]
        held = known.find(name)
        if held is None:
            return [_unknown(name, resource, is_demanded=is_demanded)]
        if held.type != type:
            return [_of_other_type(name, resource)]
        try:
            package, profile = await known.profile(held)
        except ValueError as error:
            return [_unusable(name, str(error), resource, is_demanded=is_demanded)]
        await known.extensions(package, held.package, _extension_urls(resource.value))
        return await _checked(resource, profile, package, warns=warns)

    async def held(self) -> HeldProfiles:
        """The profiles that are here now."""
        return (await self._current()).profiles

    async def claims(self) -> Claims:
        """What the server claims by its packages.  While the store cannot be asked, what it claimed before."""
        try:
            return (await self._current()).claims
        except Problem:
            return self._held.claims if self._held is not None else NO_CLAIMS

    async def _current(self) -> _Held:
        revision = await self._store.key_values.get(REVISION, "", 0)
        if self._held is None or revision != self._held.revision:
            stored = await stored_packages(self._store)
            self._held = _Held(revision, held_profiles(self._store, stored), claims_of(stored, guide_profiles()))
        return self._held


async def _checked(resource: PlacedResource, profile: Profile, package: PackageKnowledge, *, warns: bool) -> list[Issue]:
    run, questions = resource.run(), list[CodeQuestion]()
    check = ProfileCheck(package.known, run, questions)
    try:
        for _ in check.steps(resource.value, profile, resource.place):
            await budget.give_way()
    except RecursionError:
        run.issues.append(Issue("structure", "The resource is nested too deeply.", (expression(resource.place),)))
    issues = [*run.issues, *(check.remarks if warns else ())]
    for question in questions:
        if question.binding.strict or warns:
            issues += await _answered(question, package)
        await budget.give_way()
    return issues


async def _answered(question: CodeQuestion, package: PackageKnowledge) -> list[Issue]:
    """One issue if all codings are known to be outside of the value set, of which one must, or should, be in it."""
    strict, url = question.binding.strict, question.binding.value_set
    verdicts = [await package.is_member(url, system, code) for system, code in question.codings]
    if any(verdict is not False for verdict in verdicts) or not (verdicts or strict):
        return []
    what = quote(question.codings[0][1]) if question.codings else "This value"
    rule = "takes the code" if strict else "takes codes if one fits"
    text = f"{what} is not in the value set {quote(url)}, from which the profile {rule}."
    return [Issue("code-invalid", text, (question.place,), "error" if strict else "warning")]


def _extension_urls(value: Any) -> frozenset[str]:
    found: set[str] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for name in ("extension", "modifierExtension"):
                inner = part.get(name)
                found.update(str(one.get("url")) for one in inner if isinstance(one, dict)) if isinstance(inner, list) else None
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return frozenset(found)


def _unknown(name: str, resource: PlacedResource, *, is_demanded: bool) -> Issue:
    text = f"The profile {quote(name)} is not known to this server. The resource was not checked against it."
    return Issue("not-supported", text, () if is_demanded else _claim_place(resource), "error" if is_demanded else "warning")


def _unusable(name: str, reason: str, resource: PlacedResource, *, is_demanded: bool) -> Issue:
    text = f"No resource can be checked against the profile {quote(name)}: {reason}."
    return Issue("not-supported", text, () if is_demanded else _claim_place(resource), "error" if is_demanded else "warning")


def _of_other_type(name: str, resource: PlacedResource) -> Issue:
    return Issue("value", f"The profile {quote(name)} is not one of {resource.type}.", _claim_place(resource))


def _claim_place(resource: PlacedResource) -> tuple[str, ...]:
    return (f"{expression(resource.place)}.meta.profile",)


def required_of(text: str) -> dict[str, tuple[str, ...]]:
    """Type -> profiles, as the setting ``required_profiles`` has them.  Raises ValueError, with a message for the operator."""
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split():
        type, sign, url = part.partition("=")
        if type not in definitions.types() or not sign or ":" not in url:
            raise ValueError(f"FHIR_SERVER_REQUIRED_PROFILES has Type=URL, separated by blanks; {part!r} is no such pair.")
        found[type] = (*found.get(type, ()), url)
    return found
