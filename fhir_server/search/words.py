"""The words of a resource, for ``_text`` and ``_content`` (http://hl7.org/fhir/R4/search.html#content).

``_text`` searches the narrative, ``_content`` the narrative and all other texts: elements of the types string, markdown and code, also
of contained resources and extensions. Addresses (references, URLs, ids), dates, numbers and binary data are not texts, and ``meta`` is
not part of what a resource says. A word is a run of letters and digits, without case and diacritics as strings are compared.

An index entry of kind ``words`` holds all different words of one part: ``" anemia iron "``, each between spaces. Words of parts with
different visibility classes are in different entries.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final

from fhir_server.jsontext import Path
from fhir_server.resources import definitions
from fhir_server.search.parameter_types.string import fold
from fhir_server.search.rows import Entry

NARRATIVE: Final = "_text"
CONTENT: Final = "_content"
KIND: Final = "words"
MAX_WORD: Final = 100
"""Characters of a word; a longer run of letters and digits is not one."""

_WORD: Final = re.compile(r"[^\W_]+")
_MARKUP: Final = re.compile(r"<!--.*?-->|<(?:[^<>\"']|\"[^\"]*\"|'[^']*')*>", re.DOTALL)
_TEXTS: Final = frozenset({"string", "markdown", "code"})
_NOT_TEXT: Final = frozenset({"Reference.reference", "SampledData.data", "Narrative.status"})
_TEXT, _XHTML, _RESOURCE, _NO_DATATYPE = "text", "xhtml", "resource", "Element"

Text = tuple[Path, str]


@cache
def parameters(type: str) -> tuple[str, ...]:
    """Which of the two a type has: ``_text`` only if it has a narrative."""
    return (NARRATIVE, CONTENT) if "text" in _members(type) and type in definitions.types() else (CONTENT,)


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    folded = text.lower() if text.isascii() else fold(text)
    return [word for word in _WORD.findall(folded) if len(word) <= MAX_WORD]


def entries(type: str, resource: Mapping[str, Any], apart: Collection[str] = frozenset()) -> list[Entry]:
    """The entries of a valid resource: one for its narrative, and one for its other texts.

    ``apart``: the members with parts that not every reader of the resource sees; each text in them has an entry of its own.
    """
    found: list[tuple[str, Path, str]] = []
    together: list[str] = []
    members, first = _members(type), ""
    for name, child in resource.items():
        below = members.get(name)
        if below is None:
            continue
        if name == "text":
            texts: list[Text] = []
            _with_paths(child, below, (name,), texts)
            found += [(NARRATIVE, path, text) for path, text in texts]
        elif name in apart:
            texts = []
            _with_paths(child, below, (name,), texts)
            found += [(CONTENT, path, text) for path, text in texts]
        else:
            first = first or name
            _texts(child, below, together)
    if together:
        found.append((CONTENT, (first,), "\n".join(together)))
    made = [Entry(param, KIND, (joined(words(text)),), path) for param, path, text in found]
    return [entry for entry in made if entry.value[0]]


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """The same entries, of which those of words are one for each parameter and class."""
    groups: dict[tuple[str, int], list[str]] = {}
    others: list[Entry] = []
    for entry in entries:
        if entry.kind == KIND:
            groups.setdefault((entry.param, entry.class_id), []).append(str(entry.value[0]))
        else:
            others.append(entry)
    return others + [
        Entry(param, KIND, (texts[0] if len(texts) == 1 else joined(" ".join(texts).split()),), (), class_id)
        for (param, class_id), texts in groups.items()
    ]


def joined(found: Iterable[str]) -> str:
    """The value of an entry with these words, each once; empty without any."""
    text = " ".join(sorted(set(found)))
    return f" {text} " if text else ""


def _texts(value: Any, below: str, found: list[str]) -> None:
    kind = type(value)
    if kind is str:
        if below == _TEXT:
            found.append(value)
        elif below == _XHTML:
            found.append(_plain(value))
    elif kind is dict:
        members = _members(value.get("resourceType", "") if below == _RESOURCE else below)
        for name, child in value.items():
            inner = members.get(name)
            if inner is not None:
                if inner == _TEXT and type(child) is str:
                    found.append(child)
                else:
                    _texts(child, inner, found)
    elif kind is list:
        for item in value:
            _texts(item, below, found)


def _with_paths(value: Any, below: str, path: Path, found: list[Text]) -> None:
    if type(value) is list:
        for number, item in enumerate(value):
            _with_paths(item, below, (*path, number), found)
    elif type(value) is dict:
        members = _members(value.get("resourceType", "") if below == _RESOURCE else below)
        for name, child in value.items():
            if name in members:
                _with_paths(child, members[name], (*path, name), found)
    else:
        texts: list[str] = []
        _texts(value, below, texts)
        found += [(path, text) for text in texts]


def _plain(xhtml: str) -> str:
    """The text of a narrative."""
    return html.unescape(_MARKUP.sub(" ", xhtml))


@cache
def _members(holder: str) -> Mapping[str, str]:
    """Member name -> what it holds: a text, a resource, or an object of this type or at this path of a definition."""
    type, _, _ = holder.partition(".")
    if type != _NO_DATATYPE and type not in definitions.types() and type not in definitions.datatypes():
        return {}
    found = {"extension": "Extension"}
    for element in definitions.elements(type) if type != _NO_DATATYPE else ():
        outer, _, name = element.path.rpartition(".")
        if outer != holder or name == "id" or element.path in _NOT_TEXT:
            continue
        for code in [one.code for one in element.types] or [""]:
            member = name.removesuffix("[x]") + (code[0].upper() + code[1:] if name.endswith("[x]") else "")
            below = element.like or _below(code, element.path)
            if below:
                found[member] = below
            if code in definitions.primitives():
                found["_" + member] = _NO_DATATYPE
    return found


def _below(code: str, path: str) -> str:
    if code in _TEXTS:
        return _TEXT
    if code in ("xhtml", "Resource"):
        return {"xhtml": _XHTML, "Resource": _RESOURCE}[code]
    if code in ("BackboneElement", "Element"):
        return path
    return code if code in definitions.datatypes() and code != "Meta" else ""
