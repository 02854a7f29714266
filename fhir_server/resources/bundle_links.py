"""Resolves the links between the entries of a Bundle (http://hl7.org/fhir/R4/bundle.html#references, http.html#trules).

A relative reference is read against the fullUrl of the entry in which it stands: in the entry ``http://ehr.example/fhir/Observation/7``,
``Patient/1`` is ``http://ehr.example/fhir/Patient/1``. If an entry has this fullUrl, the reference leads to it. If none has it, it is
a resource of ehr.example: the reference becomes the absolute URL, and never leads to the Patient of this server that has the same id.
In an entry whose fullUrl is absent, a URN or a URL of this server, a relative reference names a resource of this server.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_server import jsontext
from fhir_server.errors import Problem
from fhir_server.resources.references import LiteralReference, parse_reference, restful
from fhir_server.resources.server_base import ServerBase
from fhir_server.resources.uri_elements import UriValue, uri_values

_REFERENCE: Final = re.compile(rb'("reference"\s*:\s*")([^"\\]*)"')
_RELATIVE_LINK: Final = re.compile(rb"""(?:[uU]rl"\s*:\s*"|(?:href|src)\s*=\s*(?:\\"|'))[A-Z][A-Za-z]+/""")
_LINK_WORDS: Final = (b'rl"', b"href", b"src")
_ATTRIBUTE: Final = re.compile(r"""(\s(?:href|src)\s*=\s*)("[^"]*"|'[^']*')""")


@dataclass(slots=True)
class BundleLinks:
    """The links of one Bundle.

    ``server``     recognizes URLs of this server
    ``targets``    ``Type/id`` of the row that an entry's resource becomes, by :meth:`key` of the fullUrl
    ``versions``   meta.versionId of the entry's resource, by the same key
    ``refused``    keys of the entries that no link may lead to: a batch has no order, so an entry cannot refer to a new one
    ``ambiguous``  ``Type/id`` that an entry's resource has where it comes from, while its fullUrl does not say so
    """

    server: ServerBase
    targets: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    ambiguous: set[str] = field(default_factory=set)
    _prefixes: tuple[bytes, ...] | None = None

    def add(self, full_url: str, resource: Mapping[str, Any], target: str | None, *, keeps_id: bool) -> None:
        """Add an entry. ``target`` None: no link may lead to it. ``keeps_id``: the row has the resource's own id.

        Raises Problem ``invalid`` for a fullUrl that an earlier entry has (invariant bdl-7).
        """
        name = f"{resource.get('resourceType')}/{resource.get('id')}"
        if not keeps_id and "id" in resource and restful(full_url) is None:
            self.ambiguous.add(name)
        if not full_url:
            return
        key = self.key(full_url)
        if key in self.targets or key in self.refused:
            raise Problem("invalid", "Two entries of the Bundle have the same fullUrl.")
        if target is None:
            self.refused.add(key)
        else:
            self.targets[key] = target
        meta = resource.get("meta")
        self.versions[key] = str(meta.get("versionId", "")) if isinstance(meta, dict) else ""

    def key(self, url: str) -> str:
        """The one spelling of a URL or URN by which entries are found."""
        if url[:9].lower() == "urn:uuid:":
            return url.lower()
        relative = self.server.relative(url)
        return url if relative is None else f"{self.server.base}/{relative}"

    def target(self, link: str) -> str | None:
        """The row that an entry with exactly this fullUrl becomes, or None.  Raises Problem ``invalid`` if no link may lead to it."""
        key = self.key(link)
        if key in self.refused:
            raise Problem("invalid", f"The link {link[:80]!r} leads to another entry of the batch; only a transaction can resolve it.")
        return self.targets.get(key)

    def resolve(self, link: str, full_url: str) -> str | None:
        """What a link in the entry with this fullUrl becomes; None: it stays.

        Raises Problem ``invalid`` for a link that may mean two resources.
        """
        if link[:1] in ("", "#"):
            return None
        if (target := self.target(link)) is not None:
            return target
        reference = parse_reference(link)
        if reference is None or not reference.id:
            return None
        if reference.kind == "absolute":
            return self._versioned(reference) or self._own(link)
        origin = restful(full_url)
        is_own = origin is None or self.server.relative(full_url) is not None
        base = self.server.base if origin is None or is_own else origin.base
        absolute = reference._replace(kind="absolute", base=base)
        target = self.target(_unversioned(absolute)) if not reference.version else self._versioned(absolute)
        if target is not None:
            return target
        if not is_own:
            return f"{base}/{link}"
        if f"{reference.type}/{reference.id}" in self.ambiguous:
            raise Problem(
                "invalid",
                f"The reference {link[:80]!r} may mean an entry of the Bundle or a resource of this server; a fullUrl must say which.",
            )
        return None

    def _own(self, link: str) -> str | None:
        relative = self.server.relative(link)
        return relative if relative is not None and parse_reference(relative) is not None else None

    def _versioned(self, reference: LiteralReference) -> str | None:
        """The row of the entry that this version-specific URL names: by fullUrl and meta.versionId."""
        if not reference.version or self.versions.get(self.key(_unversioned(reference))) != reference.version:
            return None
        return self.target(_unversioned(reference))

    def rewrite(self, text: bytes, full_url: str) -> bytes:
        """The JSON text of an entry's resource with its links resolved.

        Links are literal references, elements of type uri, url, oid and uuid, and ``href`` and ``src`` of a narrative.  An
        identifier's value may look like a link, but is not one.  Raises Problem ``invalid`` for a link that may mean two resources.
        """

        known: dict[bytes, bytes] = {}  # a resource may name another thousands of times

        def replace(match: re.Match[bytes]) -> bytes:
            link = match[2]
            if link not in known:
                new = self.resolve(link.decode(), full_url)
                known[link] = link if new is None else new.encode()
            return b'%s%s"' % (match[1], known[link])

        text = _REFERENCE.sub(replace, text)
        if not self._may_have_other_links(text):
            return text
        value = jsontext.parse(text)
        found = uri_values(value) if isinstance(value, dict) else ()
        changed = {one: _string(link) for one in found if (link := self._rewritten(one, full_url)) is not None}
        text = jsontext.replace_values(text, {one.path: link for one, link in changed.items()})
        for one, text_of_link in changed.items():
            if one.datatype in ("uuid", "oid"):  # these are choices such as value[x]; Type/id is no uuid, but a uri
                name = str(one.path[-1])
                as_uri = _string(name.removesuffix(one.datatype.capitalize()) + "Uri")
                text = text.replace(_string(name) + b":" + text_of_link, as_uri + b":" + text_of_link)
        return text

    def _may_have_other_links(self, text: bytes) -> bool:
        if self._prefixes is None:
            keys = [*self.targets, *self.refused]
            urns = (b"urn:uuid:",) if any(key[:9] == "urn:uuid:" for key in keys) else ()
            others = [key for key in keys if key[:9] != "urn:uuid:"]
            self._prefixes = (*urns, _common_prefix(others).encode()) if others else urns
        for prefix in self._prefixes:
            if prefix in text:
                return True
        if b"\\" in text and b"\\/" in text:
            return True
        # The expression begins with nothing literal; to search for its words first is several times as fast.
        return any(word in text for word in _LINK_WORDS) and _RELATIVE_LINK.search(text) is not None

    def _rewritten(self, found: UriValue, full_url: str) -> str | None:
        if found.datatype == "xhtml":
            new = _ATTRIBUTE.sub(lambda match: self._attribute(match, full_url), found.text)
            return new if new != found.text else None
        if found.datatype == "url" or found.path[-1] == "url":
            return self.resolve(found.text, full_url)
        return self.target(found.text)

    def _attribute(self, match: re.Match[str], full_url: str) -> str:
        mark = match[2][0]
        new = self.resolve(html.unescape(match[2][1:-1]), full_url)
        return match[0] if new is None else f"{match[1]}{mark}{html.escape(new)}{mark}"


def _string(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def _common_prefix(texts: Collection[str]) -> str:
    low, high = min(texts), max(texts)
    size = next((place for place, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), min(len(low), len(high)))
    return low[:size]


def _unversioned(reference: LiteralReference) -> str:
    return f"{reference.base}/{reference.type}/{reference.id}"
