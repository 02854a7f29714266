"""Which security labels, tags and source a caller may send.  What a caller may not send is refused; nothing is dropped.

The institution's feed sends any.  A treating clinician, and every app that one uses, may send the restraint codes PHY, TBOO and
NOPAT, which withhold a resource from the patient side.  Everyone may send back what the visible version has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.access.permissions import Permissions
from fhir_server.access.visible_versions import VisibleVersion
from fhir_server.consent.policy import ActorKind
from fhir_server.consent.security_labels import is_restraint
from fhir_server.errors import Issue, Problem
from fhir_server.packages import mark
from fhir_server.writing.draft import Draft
from fhir_server.writing.meta import INTERNAL_META

_TREATING: Final = (ActorKind.CLINICIAN, ActorKind.BREAK_GLASS)


def may_restrain(permissions: Permissions, type: str) -> bool:
    """Whether the caller may set and remove the restraint of resources of this type: it treats patients and may change them."""
    return permissions.actor is not None and permissions.actor.kind in _TREATING and permissions.may_write(type, "u")


def require_may_send(permissions: Permissions, draft: Draft, visible: VisibleVersion | None) -> None:
    """Require that the caller may send the draft's labels, tags and source.  ``visible`` is the current version as the caller sees it.

    Raises Problem ``forbidden`` that names each one that it may not send.
    """
    mark.require_no_mark(draft.value)
    if permissions.may_write_labels or not (meta := draft.value.get("meta")):
        return
    present = (jsontext.parse(visible.body) if visible and visible.body else {}).get("meta", {})
    may_label = may_restrain(permissions, draft.type)
    issues = tuple(
        Issue("forbidden", f"This caller may not set {place} to {_text(item)}.", (place,))
        for place, item, known in _items(draft.type, meta, present)
        if not known and not (may_label and is_restraint(item))
    )
    if issues:
        raise Problem("forbidden", issues[0].text, issues)


def _items(type: str, meta: dict[str, Any], present: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """The place and value of each label, tag and source that is sent, and whether the present version has it too."""
    for member in INTERNAL_META:
        sent, known = meta.get(member, []), present.get(member, [])
        if not isinstance(sent, list):
            yield f"{type}.meta.{member}", {"uri": sent}, sent == known
            continue
        keys = {(item.get("system"), item.get("code")) for item in known}
        for number, item in enumerate(sent):
            yield f"{type}.meta.{member}[{number}]", item, "code" in item and (item.get("system"), item["code"]) in keys


def _text(item: dict[str, Any]) -> str:
    return "|".join(str(item[name]) for name in ("system", "code", "uri") if name in item) or "a value without a code"
