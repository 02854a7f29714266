"""Search parameters that the institution has added to R4's, by SearchParameter resources in the store.

Which ones a request may use follows from its snapshot.  Whoever has that snapshot says so (:func:`in_use`), for all code that parses
the request; elsewhere, and in the conditions of scopes, R4's parameters are all there are.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from fhir_server.resources.definitions import ParameterKind

_MARK: Final = "@"  # no code of a parameter has one


class CustomParameter(msgspec.Struct, frozen=True):
    """A search parameter of one type.

    ``expression``  in the subset of :mod:`fhir_server.search.expression`, each choice in the middle of a path with its datatype
    ``targets``     the types to which a reference may lead
    ``datatypes``   those of the elements that it selects
    """

    type: str
    code: str
    kind: ParameterKind
    expression: str
    targets: tuple[str, ...]
    datatypes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its index entries.  Another definition with the same code has others, so no entry answers for the wrong one."""
        return _name(self)


@lru_cache(4096)
def _name(parameter: CustomParameter) -> str:
    digest = sha256(msgspec.json.encode(parameter)).hexdigest()[:16]
    return f"{parameter.code}{_MARK}{parameter.kind}.{digest}"


def kind_of_entries(name: str) -> str:
    """The kind of the custom parameter whose index entries have this name; "" for one of R4."""
    return name.partition(_MARK)[2].partition(".")[0]


def code_of_entries(name: str) -> str:
    """The code of the parameter whose index entries have this name."""
    return name.partition(_MARK)[0]


@dataclass(frozen=True, slots=True)
class CustomParameters:
    """The custom parameters of a snapshot.  Rows have the entries of all; only those that ``ready`` has answer a search."""

    ready: frozenset[CustomParameter] = frozenset()
    pending: frozenset[CustomParameter] = frozenset()

    def of(self, type: str) -> tuple[CustomParameter, ...]:
        """All of a type, for whoever makes index entries."""
        return _of(self, type)

    def is_pending(self, type: str, code: str) -> bool:
        """Whether rows of this type may still lack the entries of the parameter with this code."""
        return any(one.type == type and one.code == code for one in self.pending)


NONE: Final = CustomParameters()


@lru_cache(1024)
def _of(parameters: CustomParameters, type: str) -> tuple[CustomParameter, ...]:
    return tuple(sorted((one for one in parameters.ready | parameters.pending if one.type == type), key=lambda one: one.name))


_IN_USE: ContextVar[CustomParameters] = ContextVar("custom search parameters", default=NONE)


def current() -> CustomParameters:
    """The custom parameters that requests may use here."""
    return _IN_USE.get()


class in_use:
    """Lets requests use these custom parameters: a context manager, as a class because a generator costs each request more."""

    __slots__ = ("_parameters", "_token")

    def __init__(self, parameters: CustomParameters) -> None:
        self._parameters = parameters

    def __enter__(self) -> None:
        self._token: Token[CustomParameters] = _IN_USE.set(self._parameters)

    def __exit__(self, *_: object) -> None:
        _IN_USE.reset(self._token)
