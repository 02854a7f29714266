"""What one check needs to know: the profiles, the codes that tell slices apart, and the types of targets."""

from __future__ import annotations

from dataclasses import dataclass, field

from fhir_server.profiles.elements import CORE, ElementNode, Profile, is_core

Key = tuple[str, str]


@dataclass(slots=True)
class Known:
    """Definitions by canonical URL, as they are named.

    ``profiles``   None for one that is not here, or that no resource can be checked against
    ``codes``      value set -> its (system, code) pairs; None if they cannot all be known
    ``targets``    profile of a reference's target -> the type that it constrains; "" if it is not known
    """

    profiles: dict[str, Profile | None] = field(default_factory=dict)
    codes: dict[str, frozenset[Key] | None] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    def target_type(self, url: str) -> str:
        """The type that a target's profile constrains; "" if it is not known."""
        return url.partition("|")[0].removeprefix(CORE) if is_core(url) else self.targets.get(url, "")

    def child(self, node: ElementNode, name: str) -> ElementNode | None:
        """The element ``name`` of an element, also where the profile of its type says something of it."""
        if (own := node.children.get(name)) is not None:
            return own
        profiles = (self.profiles.get(url) for option in node.types for url in option.profiles)
        return next((profile.root.children[name] for profile in profiles if profile and name in profile.root.children), None)
