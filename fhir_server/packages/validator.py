"""Which profiles a resource must meet, and whether it does.

A resource must meet the profiles that it claims in ``meta.profile`` and those that the institution requires of its type.  The
verdict follows from the resource and the packages alone, and so is the same for every caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fhir_server import budget
from fhir_server.errors import Issue, Problem
from fhir_server.packages.claims import NO_CLAIMS, Claims, claims_of
from fhir_server.packages.loading import REVISION, stored_packages
from fhir_server.packages.profile_source import guide_profiles, held_profiles
from fhir_server.profiles.check import CodeQuestion, ProfileCheck
from fhir_server.profiles.elements import CORE, Profile, is_core
from fhir_server.profiles.held_profiles import HeldProfiles, PackageKnowledge
from fhir_server.resources import definitions
from fhir_server.resources.validation_run import MAX_ISSUES, ValidationRun, quote
from fhir_server.store import Store

_MOST_CLAIMS: Final = 20


class _Held(NamedTuple):
    """What packages hold since their last change."""

    revision: bytes | None
    profiles: HeldProfiles
    claims: Claims


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
        return type in self._required or bool(value.get("meta", {}).get("profile"))

    async def require(self, type: str, value: Mapping[str, Any]) -> None:
        """Require that a valid resource meets the profiles that it must meet.  Raises Problem ``unprocessable`` or ``too_costly``."""
        errors = tuple(issue for issue in await self._all_issues(type, value, (), warns=self._refuses_unknown) if self._refuses(issue))
        if errors:
            raise Problem("unprocessable", errors[0].text, errors)

    async def issues(self, type: str, value: Mapping[str, Any], asked: str = "") -> list[Issue]:
        """All that can be said of a valid resource: errors, warnings, and what cannot be checked here.  ``asked``: one more profile."""
        found = await self._all_issues(type, value, (asked,) if asked else (), warns=True)
        return [_as_error(issue) if self._refuses(issue) else issue for issue in found]

    def _refuses(self, issue: Issue) -> bool:
        return issue.severity == "error" or (self._refuses_unknown and issue.code == "not-supported" and issue.severity == "warning")

    async def _all_issues(self, type: str, value: Mapping[str, Any], asked: Sequence[str], *, warns: bool) -> list[Issue]:
        claims = value.get("meta", {}).get("profile", ())
        names = dict.fromkeys((*asked, *self._required.get(type, ()), *(claim for claim in claims if isinstance(claim, str))))
        if not names:
            return []
        if len(names) > _MOST_CLAIMS:
            raise Problem("unprocessable", f"A resource claims at most {_MOST_CLAIMS} profiles.")
        found: dict[Issue, None] = {}
        known = await self.held()
        for name in names:
            is_demanded = name in asked or name in self._required.get(type, ())
            found.update(dict.fromkeys(await self._issues(type, value, name, known, is_demanded=is_demanded, warns=warns)))
        return list(found)[:MAX_ISSUES]

    async def _issues(
        self, type: str, value: Mapping[str, Any], name: str, known: HeldProfiles, *, is_demanded: bool, warns: bool
    ) -> list[Issue]:
        if is_core(name):
            return [] if name.partition("|")[0].removeprefix(CORE) in (type, "Resource", "DomainResource") else [_of_other_type(name, type)]
        held = known.find(name)
        if held is None:
            return [_unknown(name, is_demanded=is_demanded)]
        if held.type != type:
            return [_of_other_type(name, type)]
        try:
            package, profile = await known.profile(held)
        except ValueError as error:
            return [_unusable(name, str(error), is_demanded=is_demanded)]
        await known.extensions(package, held.package, _extension_urls(value))
        return await _checked(value, profile, package, warns=warns)

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


async def _checked(value: Mapping[str, Any], profile: Profile, package: PackageKnowledge, *, warns: bool) -> list[Issue]:
    run, questions = ValidationRun(value), list[CodeQuestion]()
    check = ProfileCheck(package.known, run, questions)
    try:
        for _ in check.steps(value, profile):
            await budget.give_way()
    except RecursionError:
        run.issues.append(Issue("structure", "The resource is nested too deeply.", (profile.type,)))
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


def _unknown(name: str, *, is_demanded: bool) -> Issue:
    text = f"The profile {quote(name)} is not known to this server. The resource was not checked against it."
    return Issue("not-supported", text, severity="error" if is_demanded else "warning")


def _unusable(name: str, reason: str, *, is_demanded: bool) -> Issue:
    text = f"No resource can be checked against the profile {quote(name)}: {reason}."
    return Issue("not-supported", text, severity="error" if is_demanded else "warning")


def _of_other_type(name: str, type: str) -> Issue:
    return Issue("value", f"The profile {quote(name)} is not one of {type}.", (f"{type}.meta.profile",))


def _as_error(issue: Issue) -> Issue:
    return Issue(issue.code, issue.text, issue.expression, "error")


def required_of(text: str) -> dict[str, tuple[str, ...]]:
    """Type -> profiles, as the setting ``required_profiles`` has them.  Raises ValueError, with a message for the operator."""
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split():
        type, sign, url = part.partition("=")
        if type not in definitions.types() or not sign or ":" not in url:
            raise ValueError(f"FHIR_SERVER_REQUIRED_PROFILES has Type=URL, separated by blanks; {part!r} is no such pair.")
        found[type] = (*found.get(type, ()), url)
    return found
